#!lua flags=allow-oom
-- Writes one record of the registry if it has the version that the caller knows. Also runs when memory is full: the write may
-- be an order to stop.
--
-- KEYS 1 registry, 2 revision: as in registry_since.lua      3 meta: as in meta.lua. Of a layout above LAYOUT nothing is written:
--      the reply is the error `LAYOUT <found>`
-- ARGV 1 the record's name      2 its expected version (0: there is none)      3 the value (empty: removed)
--      4 8 random bytes that distinguish this write from another of the same number
-- Reply, packed doubles: 0, the new version; or 1, the present version (0: there is none), and nothing was changed
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:registry tollgate:{acme}:registry:revision tollgate:{acme}:meta
--   key/some 0 {} abcdefgh
--   -> pack(0, 1); the same once more -> pack(1, 1)
if #KEYS ~= 3 or #ARGV ~= 4 then return redis.error_reply('ERR registry_write: 3 keys and 4 arguments') end
look_at_layout(KEYS[3])
local record = redis.call('HGET', KEYS[1], ARGV[1])
local version = record and #record >= 8 and struct.unpack('<d', record) or 0
if version ~= ARGV[2] + 0 then return struct.pack('<dd', 1, version) end
local number = redis.call('HINCRBY', KEYS[2], 'number', 1)
redis.call('HSET', KEYS[2], ('write/%.0f'):format(number), ARGV[4] .. ARGV[1])
redis.call('HDEL', KEYS[2], ('write/%.0f'):format(number - REGISTRY_WRITES_KEPT))
redis.call('HSET', KEYS[1], ARGV[1], struct.pack('<d', number) .. ARGV[3])
return struct.pack('<dd', 0, number)
