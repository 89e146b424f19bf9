#!lua flags=no-writes
-- Returns how often secrets were used.
--
-- KEYS for each secret its hash, as in add_uses.lua
--      Last, meta: as in meta.lua. Of a layout above LAYOUT nothing is read: the reply is the error `LAYOUT <found>`
-- Reply, packed doubles: for each secret the ms of its last use (0: never), how many slots follow, and for each of them
--      the slot and its requests, in no order
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:uses:00ff… tollgate:{acme}:meta -> pack(1795428000000, 1, 1994920, 3)
if #KEYS < 1 or #ARGV ~= 0 then return redis.error_reply('ERR uses: at least 1 key, and no arguments') end
look_at_layout(table.remove(KEYS))
local parts = {}
for _, key in ipairs(KEYS) do
  local all, last, slots = redis.call('HGETALL', key), 0, {}
  for i = 1, #all, 2 do
    if all[i] == 'last' then
      last = all[i + 1]
    else
      slots[#slots + 1] = struct.pack('<dd', all[i], all[i + 1])
    end
  end
  parts[#parts + 1] = struct.pack('<dd', last, #slots) .. table.concat(slots)
end
return table.concat(parts)
