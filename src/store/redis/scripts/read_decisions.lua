#!lua
-- Reads decisions, and notes that someone watches.
--
-- KEYS 1 decisions, 2 decisions:watched, 3 meta: as in publish_decisions.lua
-- ARGV 1 the store's time, as the caller knows it      2 the id after which to read, as <time>-<number>; empty: from the first that is kept
--      3 how many at most
-- Reply: for each, its id and what is told of it
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:decisions tollgate:{acme}:decisions:watched tollgate:{acme}:meta 6200 6100-1 500
--   -> {"6150-2", {"v":1,…}}
if #KEYS ~= 3 or #ARGV ~= 3 then return redis.error_reply('ERR read_decisions: 3 keys and 3 arguments') end
look_at_layout(KEYS[3])
local now = tonumber(ARGV[1])
redis.call('SET', KEYS[2], ('%.0f'):format(now + DECISIONS_WATCHED_MS), 'PX', DECISIONS_WATCHED_MS)
local first = math.max(now - DECISIONS_KEPT_MS, 0)
local from = ('%.0f-0'):format(first)
if ARGV[2] ~= '' and tonumber(ARGV[2]:match('^%d+')) >= first then from = '(' .. ARGV[2] end
local told = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], from, '+', 'COUNT', ARGV[3])) do
  told[#told + 1] = entry[1]
  told[#told + 1] = entry[2][2]
end
return told
