#!lua flags=allow-oom
-- Says how an organization's data is laid out, where nothing says so yet. Returns what is there then.
--
-- KEYS 1 meta       hash, in plain text: layout, the layout of what is written; min_layout, the earliest layout of what is stored;
--                   generation, 16 hexadecimal digits that tell this state of the server from another; create_time in ms
-- ARGV 1 layout      2 min_layout      3 generation
-- Reply, packed doubles: layout, min_layout; -1: not a number
--
-- A worked call: EVALSHA <sha> 1 tollgate:{acme}:meta 4 4 00ff… -> pack(4, 4)
if #KEYS ~= 1 or #ARGV ~= 3 then return redis.error_reply('ERR meta: 1 key and 3 arguments') end
if redis.call('HSETNX', KEYS[1], 'layout', ARGV[1]) == 1 then
  local time = redis.call('TIME')
  local now = ('%.0f'):format(time[1] * 1000 + math.floor(time[2] / 1000))
  redis.call('HSET', KEYS[1], 'min_layout', ARGV[2], 'generation', ARGV[3], 'create_time', now)
end
local found = redis.call('HMGET', KEYS[1], 'layout', 'min_layout')
return struct.pack('<dd', tonumber(found[1]) or -1, tonumber(found[2] or found[1]) or -1)
