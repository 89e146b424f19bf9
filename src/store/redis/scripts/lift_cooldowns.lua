#!lua flags=allow-oom
-- Opens closed gates.
--
-- KEYS 1 counters, 2 cooldowns: as in settle.lua
-- ARGV 1 the store's time as a packed double      2… the field of each gate
-- Reply, packed doubles: for each gate that was closed its number, from 0, the length of its particulars, and the particulars
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:counters tollgate:{acme}:cooldowns pack(6000) !gate/upstream/default/flex/m
--   -> pack(0, 39) .. pack(5900, 65900, 5500, 86400000) .. 'chatbot'
if #KEYS ~= 2 or #ARGV < 1 then
  return redis.error_reply('ERR lift_cooldowns: 2 keys and at least 1 argument')
end
known_time(redis.call('HGET', KEYS[1], TIME_FIELD))
local now = struct.unpack('<d', ARGV[1])
local parts = {}
for i = 2, #ARGV do
  local field = ARGV[i]
  local gate, particulars = redis.call('HGET', KEYS[1], field), redis.call('HGET', KEYS[2], field)
  if gate and particulars and now < struct.unpack('<d', gate) then
    parts[#parts + 1] = struct.pack('<dd', i - 2, #particulars) .. particulars
    redis.call('HDEL', KEYS[1], field)
    redis.call('HDEL', KEYS[2], field)
  end
end
return table.concat(parts)
