#!lua flags=allow-oom
-- Looks for records that are not where records are now, and moves those that are where layout 4 had them.
--
-- KEYS 1 records, 2 earlier: as in records.lua
--      3 meta: as in meta.lua. Of a layout above LAYOUT nothing is moved: the reply is the error `LAYOUT <found>`
-- ARGV the ids
-- Reply, packed doubles: for each id the length of its record and the record; a length of 0: there is none
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:records tollgate:{acme}:reservations tollgate:{acme}:meta <id> -> pack(0)
if #KEYS ~= 3 or #ARGV < 1 then return redis.error_reply('ERR find: 3 keys and at least 1 argument') end
look_at_layout(KEYS[3])
local parts = {}
for m, id in ipairs(ARGV) do
  local found, record = pcall(record_of, KEYS[1], KEYS[2], id)
  -- Foreign data is told as what it is, a record too short to be one, and hides no other.
  if not found then record = '?' end
  parts[m] = struct.pack('<d', record and #record or 0) .. (record or '')
end
return table.concat(parts)
