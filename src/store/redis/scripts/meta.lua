#!lua flags=allow-oom
-- Says how an organization's data is laid out, where nothing says so yet; where it is laid out as an earlier release does, says that this
-- one writes to it now, first here and then in `!time`: processes of the earlier one leave it alone from then on. Returns what is there then.
--
-- KEYS 1 meta       hash, in plain text: layout, the layout of what is written; min_layout, the earliest layout of what is stored;
--                   generation, 16 hexadecimal digits that tell this history of the data from another (generation.lua); create_time in ms
--      2 counters   for `!time`, as in store_time.lua
-- ARGV 1 layout      2 the earliest that this release reads      3 generation
-- Reply, packed doubles: layout, min_layout; -1: not a number
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:meta tollgate:{acme}:counters 5 4 00ff… -> pack(5, 5)
if #KEYS ~= 2 or #ARGV ~= 3 then return redis.error_reply('ERR meta: 2 keys and 3 arguments') end
if redis.call('HSETNX', KEYS[1], 'layout', ARGV[1]) == 1 then
  local time = redis.call('TIME')
  local now = ('%.0f'):format(time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', KEYS[1], 'min_layout', ARGV[1], 'create_time', now)
  redis.call('HSETNX', KEYS[1], 'generation', ARGV[3])
end
local found = redis.call('HMGET', KEYS[1], 'layout', 'min_layout')
local layout, min_layout = tonumber(found[1]) or -1, tonumber(found[2] or found[1]) or -1
if layout < ARGV[1] + 0 and layout >= ARGV[2] + 0 and min_layout >= ARGV[2] + 0 then
  -- Where it is not said yet, what is stored may be of the layout until now.
  redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'min_layout', ('%.0f'):format(min_layout))
  local kept = redis.call('HGET', KEYS[2], TIME_FIELD)
  if kept then redis.call('HSET', KEYS[2], TIME_FIELD, kept:sub(1, 16) .. struct.pack('<d', ARGV[1] + 0)) end
  layout = ARGV[1] + 0
end
return struct.pack('<dd', layout, min_layout)
