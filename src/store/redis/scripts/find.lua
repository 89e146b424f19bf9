#!lua flags=allow-oom
-- Looks for records that are not where records are now, and moves those that are where layout 4 had them.
--
-- KEYS 1 records, 2 earlier: as in records.lua
-- ARGV the ids
-- Reply, packed doubles: for each id the length of its record and the record; a length of 0: there is none
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:records tollgate:{acme}:reservations <id> -> pack(0)
if #KEYS ~= 2 or #ARGV < 1 then return redis.error_reply('ERR find: 2 keys and at least 1 argument') end
local parts = {}
for m, id in ipairs(ARGV) do
  local found, record = pcall(record_of, KEYS[1], KEYS[2], id)
  -- Foreign data is told as what it is, a record too short to be one, and hides no other.
  if not found then record = '?' end
  parts[m] = struct.pack('<d', record and #record or 0) .. (record or '')
end
return table.concat(parts)
