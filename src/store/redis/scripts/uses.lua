#!lua flags=no-writes
-- Returns how often secrets were used.
--
-- KEYS for each secret its hash, as in add_uses.lua
-- Reply, packed doubles: for each secret the ms of its last use (0: never), how many slots follow, and for each of them
--      the slot and its requests, in no order
--
-- A worked call: EVALSHA <sha> 1 tollgate:{acme}:uses:00ff… -> pack(1795428000000, 1, 1994920, 3)
if #ARGV ~= 0 then return redis.error_reply('ERR uses: no arguments') end
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
