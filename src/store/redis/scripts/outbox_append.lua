#!lua
-- Adds entries that are due at once, then removes the oldest of those that are not to be kept: at most OUTBOX_REMOVED more than it adds.
--
-- KEYS 1 crossings, 2 entries, 3 order, 4 due, 5 meta: as in outbox.lua
-- ARGV 1 how many entries to keep      2 the digits before which ids are too old      3, 4, … the id and the payload of each
-- Reply, packed double: how many were removed
--
-- A worked call: EVALSHA <sha> 5 tollgate:{acme}:outbox:crossings tollgate:{acme}:outbox tollgate:{acme}:outbox:order
--   tollgate:{acme}:outbox:due tollgate:{acme}:meta 50000 0198… 019a…_open/ops \2{"kind":… -> pack(0)
if #KEYS ~= 5 or #ARGV < 2 or #ARGV % 2 ~= 0 then return redis.error_reply('ERR outbox_append: 5 keys and pairs of arguments') end
for i = 3, #ARGV, 2 do add_entry(ARGV[i], ARGV[i + 1]) end
local over = redis.call('ZCARD', KEYS[3]) - ARGV[1]
local past = redis.call('ZLEXCOUNT', KEYS[3], '-', '(' .. ARGV[2])
local removed = math.min(math.max(over, past, 0), OUTBOX_REMOVED + (#ARGV - 2) / 2)
if removed > 0 then
  for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, removed - 1)) do
    redis.call('ZREM', due_of(id), id)
    redis.call('HDEL', KEYS[2], id)
  end
  redis.call('ZREMRANGEBYRANK', KEYS[3], 0, removed - 1)
end
return struct.pack('<d', removed)
