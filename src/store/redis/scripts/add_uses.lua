#!lua
-- Adds uses of secrets to their counts.
--
-- KEYS for each use its secret's hash: slot (a quarter of an hour since the epoch) -> requests; last -> ms of the last use.
--      Forgotten USES_KEPT_S after its last new slot.
--      Last, meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
-- ARGV 1 numbers, packed as doubles: for each use its slot, requests, and the ms of the last
--      2 the struct format of ARGV 1
-- Reply: how many uses there were
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:uses:00ff… tollgate:{acme}:meta pack(1994920, 3, 1795428000000) <ddd -> 1
if #KEYS < 2 or #ARGV ~= 2 then return redis.error_reply('ERR add_uses: at least 2 keys, and 2 arguments') end
look_at_layout(table.remove(KEYS))
local arg = {struct.unpack(ARGV[2], ARGV[1])}
if #arg ~= 3 * #KEYS + 1 then return redis.error_reply('ERR add_uses: the arguments do not match the keys') end
for i, key in ipairs(KEYS) do
  local slot, requests, last = arg[3 * i - 2], arg[3 * i - 1], arg[3 * i]
  local sum = redis.call('HINCRBY', key, ('%.0f'):format(slot), ('%.0f'):format(requests))
  if sum == requests then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      if field ~= 'last' and field + 0 < slot - USE_SLOTS_KEPT then redis.call('HDEL', key, field) end
    end
    redis.call('EXPIRE', key, USES_KEPT_S)
  end
  local before = redis.call('HGET', key, 'last')
  if not before or before + 0 < last then redis.call('HSET', key, 'last', ('%.0f'):format(last)) end
end
return #KEYS
