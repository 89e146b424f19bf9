#!lua flags=no-writes
-- Returns the changes in the registry after a revision that the caller knows. The cost grows with the changes, not the registry.
--
-- KEYS 1 registry   hash: name -> version (8 bytes, a little-endian double), then the value; an empty one is a removal. Names are
--                   never removed.
--      2 revision   hash: number -> the number of the last write; write/<number>, of the last REGISTRY_WRITES_KEPT -> 8 bytes that
--                   distinguish it from another of the same number, as can exist after a failover, then the name of the record
--      3 meta       as in meta.lua
-- ARGV 1 the number known (0: none)      2 its 8 bytes
-- Reply: packed doubles layout and min_layout of meta (0: there is none; -1: not a number); number; 0 if these are the changes since,
--      1 if these are all records there are, 2 if the caller has to read all of them itself; how many records there are; how many follow; the 8 bytes of the last write (zeros: none);
--      for each record the doubles version, length of the name, length of the value; the name; the value.
--      A record too short for a version is damaged: it gets version 0, and its bytes as the value.
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:registry tollgate:{acme}:registry:revision tollgate:{acme}:meta
--   0 '' -> pack(4, 4, 1, 1, 1, 1) .. 'abcdefgh' .. pack(1, 8, 2) .. 'key/some' .. '{}'
if #KEYS ~= 3 or #ARGV ~= 2 then return redis.error_reply('ERR registry_since: 3 keys and 2 arguments') end
local pack = struct.pack
local function write(number) return redis.call('HGET', KEYS[2], ('write/%.0f'):format(number)) end
local meta = redis.call('HMGET', KEYS[3], 'layout', 'min_layout')
local layout = tonumber(meta[1] or 0) or -1
local layouts = pack('<dd', layout, meta[2] and (tonumber(meta[2]) or -1) or layout)
local number, known = (redis.call('HGET', KEYS[2], 'number') or 0) + 0, ARGV[1] + 0
local last, records = (write(number) or ('\0'):rep(8)):sub(1, 8), redis.call('HLEN', KEYS[1])
local read_all = layouts .. pack('<dddd', number, 2, records, 0) .. last
local is_known = known > 0 and (write(known) or ''):sub(1, 8) == ARGV[2]
if not is_known and number > REGISTRY_WRITES_KEPT then return read_all end
local seen, parts = {}, {}
for written = is_known and known + 1 or 1, number do
  local entry = write(written)
  if not entry then return read_all end
  local name = entry:sub(9)
  local value = not seen[name] and redis.call('HGET', KEYS[1], name)
  seen[name] = true
  if value then
    local version, from = 0, 1
    if #value >= 8 then version, from = struct.unpack('<d', value), 9 end
    parts[#parts + 1] = pack('<ddd', version, #name, #value - from + 1) .. name .. value:sub(from)
  end
end
if not is_known and #parts ~= records then return read_all end
return layouts .. pack('<dddd', number, is_known and 0 or 1, records, #parts) .. last .. table.concat(parts)
