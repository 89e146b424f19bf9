#!lua
-- Adds events to the audit log, then removes the oldest of those that are not to be kept: at most AUDIT_REMOVED more than it adds.
--
-- KEYS 1 audit      sorted set with one score for all, so in the order of its members: the 28 digits of an event's id, then its
--                   line. An event is added once, however often it is sent
--      2 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
-- ARGV 1 how many events to keep      2 the id from which on they are kept      3, … the events
-- Reply, packed double: how many were removed
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:audit tollgate:{acme}:meta 1000000 0198… 019a…{"v":1,…} -> pack(0)
if #KEYS ~= 2 or #ARGV < 2 then return redis.error_reply('ERR audit_append: 2 keys and at least 2 arguments') end
look_at_layout(KEYS[2])
for i = 3, #ARGV do redis.call('ZADD', KEYS[1], 0, ARGV[i]) end
local over = redis.call('ZCARD', KEYS[1]) - ARGV[1]
local past = redis.call('ZLEXCOUNT', KEYS[1], '-', '(' .. ARGV[2])
local removed = math.min(math.max(over, past, 0), AUDIT_REMOVED + #ARGV - 2)
if removed > 0 then redis.call('ZREMRANGEBYRANK', KEYS[1], 0, removed - 1) end
return struct.pack('<d', removed)
