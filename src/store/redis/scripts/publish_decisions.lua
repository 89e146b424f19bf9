#!lua
-- Adds decisions for those who watch them, if someone does. The last DECISIONS_KEPT stay.
--
-- KEYS 1 decisions   stream: `<the store's time>-<number>` -> the field `d`, what is told of a decision (JSON). The number is one more than
--                    that of the entry before. Forgotten DECISIONS_KEPT_MS after the last, by the server's clock
--      2 decisions:watched   string: the store's time until which someone watches
--      3 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
-- ARGV 1 the store's time, as the caller knows it      2, … the decisions
-- Reply: 1 if someone watches, otherwise 0
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:decisions tollgate:{acme}:decisions:watched tollgate:{acme}:meta 6100 {"v":1,…} -> 1
if #KEYS ~= 3 or #ARGV < 1 then return redis.error_reply('ERR publish_decisions: 3 keys and at least 1 argument') end
look_at_layout(KEYS[3])
local now = tonumber(ARGV[1])
if (tonumber(redis.call('GET', KEYS[2]) or 0) or 0) <= now then return 0 end
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local ms, number = 0, 0
if last then
  ms, number = last[1]:match('^(%d+)-(%d+)$')
  ms, number = tonumber(ms), tonumber(number)
end
ms = math.max(ms, now)
for i = 2, #ARGV do
  number = number + 1
  redis.call('XADD', KEYS[1], 'MAXLEN', DECISIONS_KEPT, ('%.0f-%.0f'):format(ms, number), 'd', ARGV[i])
end
if #ARGV > 1 then redis.call('PEXPIRE', KEYS[1], DECISIONS_KEPT_MS) end
return 1
