#!lua flags=allow-oom
-- Says which history of the data this server continues, and begins another where this is not the process that continued it until now: after a
-- failover, a restart, or once all was lost. So each process of Redis has a generation of its own, whatever it took over.
--
-- KEYS 1 meta       as in meta.lua; and process, of the server that the generation is of: its run id, which a restart changes, and its
--                   replication id, which a promotion changes, also that of a primary that was a replica for a while; forked_at, the number
--                   of the registry's last write when the generation began
--      2 revision   as in registry_since.lua
-- ARGV 1 another generation, 16 hexadecimal digits, if one begins
--      2 the one that was found over this connection before (empty: none): as long as it stays, the server is not asked who it is, as
--      INFO takes it longer than a decision
-- Reply: the generation; then 1 if the server says which process it is, 0 if it does not, or - if it was not asked
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:meta tollgate:{acme}:registry:revision 00ff00ff00ff00ff '' -> "00ff00ff00ff00ff1", and
--   again with any other one -> the same; with that as the one found before -> "00ff00ff00ff00ff-"
if #KEYS ~= 2 or #ARGV ~= 2 then return redis.error_reply('ERR generation: 2 keys and 2 arguments') end
look_at_layout(KEYS[1])
local found = redis.call('HMGET', KEYS[1], 'generation', 'process')
local generation = found[1]
if generation and generation == ARGV[2] then return generation .. '-' end
local info = redis.pcall('INFO', 'server', 'replication')
local process = ''
if type(info) == 'string' then
  process = (info:match('run_id:(%x+)') or '') .. '/' .. (info:match('master_replid:(%x+)') or '')
end
if not generation or (process ~= '' and found[2] ~= process) then
  generation = ARGV[1]
  local number = redis.call('HGET', KEYS[2], 'number') or '0'
  redis.call('HSET', KEYS[1], 'generation', generation, 'process', process, 'forked_at', number)
end
return generation .. (process == '' and '0' or '1')
