#!lua
-- Notes that a replica is there, and removes some of those that were not seen for REPLICA_KEPT_MS. Where there are more than
-- REPLICAS_STORED, one more goes: the oldest of those it looks at, so that processes that start again and again do not fill the memory.
--
-- KEYS 1 counters: for `!time`, as in store_time.lua
--      2 replicas   hash: a replica's name -> the store's time when it was last seen, as a packed double, then what it says (JSON).
--                   Forgotten when no replica has written for as long, by the server's clock
-- ARGV 1 numbers: wall (negative: ask TIME), low, high (see store_time.lua)      2 the struct format of ARGV 1
--      3 the replica's name      4 what it says      5 "!time"
-- Reply, packed doubles: the wall clock, the store's time, the store's time for the next call at this instant
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:counters tollgate:{acme}:replicas pack(6100, 0, 2^53-1) <ddd gate-1:4242:9f3a01bc
--   {"v":1,…} !time -> pack(6100, 6100, 6100)
if #KEYS ~= 2 or #ARGV ~= 5 then return redis.error_reply('ERR announce_replica: 2 keys and 5 arguments') end
local arg = {struct.unpack(ARGV[2], ARGV[1])}
if #arg ~= 4 then return redis.error_reply('ERR announce_replica: 3 numbers') end
local now, wall, raw = store_time(arg[1], arg[2], arg[3], redis.call('HGET', KEYS[1], ARGV[5]))
redis.call('HSET', KEYS[2], ARGV[3], struct.pack('<d', now) .. ARGV[4])
redis.call('PEXPIRE', KEYS[2], REPLICA_KEPT_MS)
local some = redis.call('HRANDFIELD', KEYS[2], REPLICAS_LOOKED_AT, 'WITHVALUES')
local oldest, oldest_seen
for i = 1, #some, 2 do
  local name, value = some[i], some[i + 1]
  local seen = #value >= 8 and struct.unpack('<d', value)
  if not seen or now - seen >= REPLICA_KEPT_MS then
    redis.call('HDEL', KEYS[2], name)
  elseif name ~= ARGV[3] and (not oldest or seen < oldest_seen) then
    oldest, oldest_seen = name, seen
  end
end
if oldest and redis.call('HLEN', KEYS[2]) > REPLICAS_STORED then redis.call('HDEL', KEYS[2], oldest) end
return struct.pack('<ddd', wall, now, math.max(now, raw))
