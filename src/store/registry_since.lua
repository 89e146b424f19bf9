#!lua flags=no-writes
-- What changed in the registry after a revision that the caller knows; everything where the store does not know that.
--
-- KEYS 1 registry   hash: name -> version (8 bytes, a little-endian double), then the value; an empty one is a removal
--      2 revision   hash: number -> the number of the last write; mark/<number> -> 8 bytes that tell this write from another
--                   of the same number, which there can be after a failover; those of the last 1024 writes
-- ARGV 1 the number known (0: none)      2 its mark
-- Reply: packed doubles number, 1 if these are all records there are, how many; the mark (8 bytes);
--      for each record the doubles version, length of the name, length of the value; the name; the value
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:registry tollgate:{acme}:registry:revision 0 ''
--   -> pack(1, 1, 1) .. 'abcdefgh' .. pack(1, 8, 2) .. 'key/some' .. '{}'
if #KEYS ~= 2 or #ARGV ~= 2 then return redis.error_reply('ERR registry_since: 2 keys and 2 arguments') end
local pack, known = struct.pack, ARGV[1]
local number = redis.call('HGET', KEYS[2], 'number') or '0'
local mark = redis.call('HGET', KEYS[2], 'mark/' .. number) or ('\0'):rep(8)
local whole = known == '0' or redis.call('HGET', KEYS[2], 'mark/' .. known) ~= ARGV[2]
if not whole and known == number then return pack('<ddd', number, 0, 0) .. mark end
local all, since, parts = redis.call('HGETALL', KEYS[1]), whole and 0 or known + 0, {}
for i = 1, #all, 2 do
  local name, value = all[i], all[i + 1]
  local version = struct.unpack('<d', value)
  if version > since then
    parts[#parts + 1] = pack('<ddd', version, #name, #value - 8) .. name .. value:sub(9)
  end
end
return pack('<ddd', number, whole and 1 or 0, #parts) .. mark .. table.concat(parts)
