#!lua flags=allow-oom
-- Says which history of the data this server continues, and begins another where this is not the process that continued it until now: after a
-- failover, a restart, or once all was lost. So each process of Redis has a generation of its own, whatever it took over.
--
-- KEYS 1 meta       as in meta.lua; and process, of the server that the generation is of: its run id, which a restart changes, and its
--                   replication id, which a promotion changes, also that of a primary that was a replica for a while; forked_at, the number
--                   of the registry's last write when the generation began; replayed_time, the server's time in ms when one last took the
--                   place of another, or a store that knew another looked, which writes again what is missing
--      2 revision   as in registry_since.lua
-- ARGV 1 another generation, 16 hexadecimal digits, if one begins
--      2 the one that was found over this connection before (empty: none): as long as it stays, the server is not asked who it is, as
--      INFO takes it longer than a decision
--      3 the one on whose server all is that the store keeps (empty: it is new)
-- Reply: the generation; then 1 if the server says which process it is, 0 if it does not, or - if it was not asked; then how long ago
-- replayed_time is, in ms (empty: there is none)
--
-- A worked call: EVALSHA <sha> 2 tollgate:{acme}:meta tollgate:{acme}:registry:revision 00ff00ff00ff00ff '' '' -> "00ff00ff00ff00ff1", and
--   again with any other one -> the same; with that as the one found before -> "00ff00ff00ff00ff-"
if #KEYS ~= 2 or #ARGV ~= 3 then return redis.error_reply('ERR generation: 2 keys and 3 arguments') end
look_at_layout(KEYS[1])
local found = redis.call('HMGET', KEYS[1], 'generation', 'process', 'replayed_time')
local generation, said, is_another = found[1], '-', false
if not generation or generation ~= ARGV[2] then
  local info = redis.pcall('INFO', 'server', 'replication')
  local process = ''
  if type(info) == 'string' then
    process = (info:match('run_id:(%x+)') or '') .. '/' .. (info:match('master_replid:(%x+)') or '')
  end
  if not generation or (process ~= '' and found[2] ~= process) then
    generation, is_another = ARGV[1], (found[2] or '') ~= ''
    local number = redis.call('HGET', KEYS[2], 'number') or '0'
    redis.call('HSET', KEYS[1], 'generation', generation, 'process', process, 'forked_at', number)
  end
  said = process == '' and '0' or '1'
end
is_another = is_another or (ARGV[3] ~= '' and ARGV[3] ~= generation)
local replayed = tonumber(found[3] or '')
if not is_another and not replayed then return generation .. said end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if is_another then
  replayed = now
  redis.call('HSET', KEYS[1], 'replayed_time', ('%.0f'):format(now))
end
return generation .. said .. ('%.0f'):format(math.max(0, now - replayed))
