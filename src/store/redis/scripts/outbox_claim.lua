#!lua
-- Claims the entries of a queue that are due, the longest due first. They are due again when the lease ends.
--
-- KEYS 1 crossings, 2 entries, 3 order, 4 due, 5 meta: as in outbox.lua      6 counters: for `!time`, as in store_time.lua
--      7 due of the queue
-- ARGV 1 numbers: wall (negative: ask TIME), low, high (see store_time.lua), count, lease in ms      2 the struct format of ARGV 1
--      3 "!time"
-- Reply, packed doubles: the wall clock, the store's time, the store's time for the next call at this instant, and how many entries
--      of the queue are not done; then for each claimed entry how often it was claimed, the lengths of its id and of its payload, and both
--
-- A worked call, at 6100 ms: EVALSHA <sha> 7 tollgate:{acme}:outbox:crossings … tollgate:{acme}:outbox:due:ops
--   pack(6100, 0, 2^53-1, 4, 60000) <ddddd !time -> pack(6100, 6100, 6100, 1, 1, 40, 300) .. id .. payload; it is due at 66100 ms
if #KEYS ~= 7 or #ARGV ~= 3 then return redis.error_reply('ERR outbox_claim: 7 keys and 3 arguments') end
local arg = {struct.unpack(ARGV[2], ARGV[1])}
if #arg ~= 6 then return redis.error_reply('ERR outbox_claim: 5 numbers') end
local now, wall, raw = store_time(arg[1], arg[2], arg[3], redis.call('HGET', KEYS[6], ARGV[3]))
local reply = {struct.pack('<dddd', wall, now, math.max(now, raw), redis.call('ZCARD', KEYS[7]))}
local due = redis.call('ZRANGEBYSCORE', KEYS[7], '-inf', ('%.0f'):format(now), 'LIMIT', 0, arg[4])
for _, id in ipairs(due) do
  local entry = redis.call('HGET', KEYS[2], id)
  if entry and #entry >= 8 then
    local claim, payload = struct.unpack('<d', entry) + 1, entry:sub(9)
    redis.call('HSET', KEYS[2], id, struct.pack('<d', claim) .. payload)
    redis.call('ZADD', KEYS[7], now + arg[5], id)
    reply[#reply + 1] = struct.pack('<ddd', claim, #id, #payload) .. id .. payload
  else
    redis.call('ZREM', KEYS[7], id)
  end
end
return table.concat(reply)
