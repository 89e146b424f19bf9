#!lua
-- Replaces the payload of an entry that the caller has claimed, and says when it is due again.
--
-- KEYS 1 crossings, 2 entries, 3 order, 4 due, 5 meta: as in outbox.lua      6 counters: for `!time`, as in store_time.lua
-- ARGV 1 numbers: wall (negative: ask TIME), low, high (see store_time.lua), claim, whether it is due again, in how many ms
--      2 the struct format of ARGV 1      3 "!time"      4 the id      5 the payload
-- Reply, packed doubles: the wall clock, the store's time, the store's time for the next call at this instant; 1, or 0: another process
--      has claimed it since, or it is done or gone, and nothing was changed
--
-- A worked call: EVALSHA <sha> 6 tollgate:{acme}:outbox:crossings … pack(6200, 0, 2^53-1, 1, 0, 0) <dddddd !time 019a…_open/ops \2{…
--   -> pack(6200, 6200, 6200, 1)
if #KEYS ~= 6 or #ARGV ~= 5 then return redis.error_reply('ERR outbox_update: 6 keys and 5 arguments') end
local arg = {struct.unpack(ARGV[2], ARGV[1])}
if #arg ~= 7 then return redis.error_reply('ERR outbox_update: 6 numbers') end
local now, wall, raw = store_time(arg[1], arg[2], arg[3], redis.call('HGET', KEYS[6], ARGV[3]))
local id, key = ARGV[4], due_of(ARGV[4])
local entry = redis.call('HGET', KEYS[2], id)
local own = entry and struct.unpack('<d', entry) == arg[4] and redis.call('ZSCORE', key, id)
if own then
  redis.call('HSET', KEYS[2], id, struct.pack('<d', arg[4]) .. ARGV[5])
  if arg[5] == 1 then redis.call('ZADD', key, now + arg[6], id) else redis.call('ZREM', key, id) end
end
return struct.pack('<dddd', wall, now, math.max(now, raw), own and 1 or 0)
