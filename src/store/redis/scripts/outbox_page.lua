#!lua
-- Returns the last entries before an id, the last one first.
--
-- KEYS 1 crossings, 2 entries, 3 order, 4 due, 5 meta: as in outbox.lua
-- ARGV 1 the end of the range, as ZREVRANGEBYLEX has it      2 count
-- Reply, for each entry: packed doubles, the lengths of its id and of its payload; then both
--
-- A worked call: EVALSHA <sha> 5 tollgate:{acme}:outbox:crossings … + 64 -> pack(34, 45) .. id .. payload
if #KEYS ~= 5 or #ARGV ~= 2 then return redis.error_reply('ERR outbox_page: 5 keys and 2 arguments') end
local reply = {}
for _, id in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[3], ARGV[1], '-', 'LIMIT', 0, ARGV[2])) do
  local entry = redis.call('HGET', KEYS[2], id)
  if entry and #entry >= 8 then reply[#reply + 1] = struct.pack('<dd', #id, #entry - 8) .. id .. entry:sub(9) end
end
return table.concat(reply)
