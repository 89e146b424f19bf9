#!lua
-- Notes that a replica took a policy into force. The first one to do so records it, and the oldest go until POLICIES_KEPT are left.
--
-- KEYS 1 policies    hash: the revision of a policy -> its number in the order in which policies were recorded, when the first replica took
--                    it into force, the length of the names, each as a packed double; the names of its replicas, the last
--                    POLICY_NAMES_KEPT, separated by line ends; and what is said of it
--      2 documents   hash: the revision of a policy -> its document
--      3 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
-- ARGV 1 the revision      2 the replica      3 when it took it into force, in milliseconds
--      4 what is said of it      5 the document; empty: none is kept
-- Reply, packed double: 1 it is recorded   0 it was before
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:policies tollgate:{acme}:policies:documents tollgate:{acme}:meta
--   5e9fedb300e80eb4 gate-1:4242:9f3a01bc 1795428000000 {"v":1,…} [organization]… -> pack(1)
if #KEYS ~= 3 or #ARGV ~= 5 then return redis.error_reply('ERR record_policy: 3 keys and 5 arguments') end
look_at_layout(KEYS[3])
local revision, replica = ARGV[1], ARGV[2]

-- The number, the time, the names and the rest of a policy; nothing for what is none.
local function read(value)
  if not value or #value < 24 then return nil end
  local number, time, length = struct.unpack('<ddd', value)
  if not (length >= 0 and length <= #value - 24) then return nil end
  return number, time, value:sub(25, 24 + length), value:sub(25 + length)
end

local function write(number, time, names, said)
  redis.call('HSET', KEYS[1], revision, struct.pack('<ddd', number, time, #names) .. names .. said)
end

local number, time, names, said = read(redis.call('HGET', KEYS[1], revision))
if number then
  local all = {}
  for name in names:gmatch('[^\n]+') do
    if name == replica then return struct.pack('<d', 0) end
    all[#all + 1] = name
  end
  all[#all + 1] = replica
  write(number, time, table.concat(all, '\n', math.max(1, #all - POLICY_NAMES_KEPT + 1)), said)
  return struct.pack('<d', 0)
end

local kept, last = {}, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local of = read(all[i + 1]) or 0
  if all[i] ~= revision then kept[#kept + 1] = {of, all[i]} end
  last = math.max(last, of)
end
table.sort(kept, function(a, b) return a[1] < b[1] end)
for i = 1, #kept - POLICIES_KEPT + 1 do
  redis.call('HDEL', KEYS[1], kept[i][2])
  redis.call('HDEL', KEYS[2], kept[i][2])
end
write(last + 1, tonumber(ARGV[3]), replica, ARGV[4])
if ARGV[5] == '' then
  redis.call('HDEL', KEYS[2], revision)
else
  redis.call('HSET', KEYS[2], revision, ARGV[5])
end
return struct.pack('<d', 1)
