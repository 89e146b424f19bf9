#!lua flags=allow-oom
-- Writes a record of the registry again that a failover forgot. What was written since the failover stays, and of several writes that it
-- forgot, by any processes and in any order, the last one counts. Also runs when memory is full: the write may be an order to stop.
--
-- KEYS 1 registry, 2 revision: as in registry_since.lua; and in revision restored/<name> -> the version that a record had when it was first
--                   written, and the one with which it was written again (doubles)      3 meta: as in generation.lua
-- ARGV 1 the record's name      2 the version that it was written as      3 the value      4 8 random bytes, as in registry_write.lua
--      5… what the write took the place of, for a server that does not say which process it is, and so not when it took over: a version, and
--      the 8 bytes of its write (empty: not known)
-- Reply, packed doubles: 1, the new version; or 0, the present version (0: there is none), and nothing was changed
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:registry tollgate:{acme}:registry:revision tollgate:{acme}:meta key/some 7 {} abcdefgh
--   -> pack(1, 1) where all was lost; the same once more -> pack(0, 1)
if #KEYS ~= 3 or #ARGV < 4 or #ARGV % 2 ~= 0 then return redis.error_reply('ERR registry_restore: 3 keys and an even number of arguments from 4 on') end
look_at_layout(KEYS[3])
local name, written = ARGV[1], ARGV[2] + 0
local record = redis.call('HGET', KEYS[1], name)
local version = record and #record >= 8 and struct.unpack('<d', record) or 0
local is_older
if version <= (tonumber(redis.call('HGET', KEYS[3], 'forked_at') or -1) or -1) then
  is_older = version < written
else
  local restored = redis.call('HGET', KEYS[2], 'restored/' .. name)
  if restored and #restored == 16 then
    local first, again = struct.unpack('<dd', restored)
    is_older = again == version and first < written
  end
end
if not is_older and (redis.call('HGET', KEYS[3], 'process') or '') == '' then
  is_older = version == 0
  for i = 5, #ARGV, 2 do
    local is_that = version == ARGV[i] + 0
    if is_that and ARGV[i + 1] ~= '' then
      is_that = (redis.call('HGET', KEYS[2], ('write/%.0f'):format(version)) or ''):sub(1, 8) == ARGV[i + 1]
    end
    is_older = is_older or is_that
  end
end
if not is_older then return struct.pack('<dd', 0, version) end
local number = redis.call('HINCRBY', KEYS[2], 'number', 1)
redis.call('HSET', KEYS[2], ('write/%.0f'):format(number), ARGV[4] .. name, 'restored/' .. name, struct.pack('<dd', written, number))
redis.call('HDEL', KEYS[2], ('write/%.0f'):format(number - REGISTRY_WRITES_KEPT))
redis.call('HSET', KEYS[1], name, struct.pack('<d', number) .. ARGV[3])
return struct.pack('<dd', 1, number)
