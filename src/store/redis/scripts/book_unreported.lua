#!lua flags=allow-oom
-- Books reservations of one kind that were not reported in rows of usage, once. Everything is computed before the first write. Also runs
-- when memory is full, as what is counted in the meantime takes memory as well.
--
-- KEYS 1 unreported: as in sweep.lua
--      2 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
--      then for each row its hash and the set of teams of its month, as in rows.lua
-- ARGV 1 numbers, packed as doubles: how many there were of the kind, how many rows; then the numbers of each row (rows.lua)
--      2 the struct format of ARGV 1      3 the kind
--      4… the field of each row, then each row's field where there is no room, then each row's team (empty: not listed)
-- Reply: 0 they are booked   1 there are more or fewer by now; nothing was changed
--        2 an amount would exceed 2^53 - 1, so they are forgotten
--
-- A worked call: one reservation of a kind that cannot be read any more is forgotten.
--   EVALSHA <sha> 2 tollgate:{acme}:unreported tollgate:{acme}:meta pack(1, 0) <dd 0123456789ab -> 0
if #KEYS < 2 or #ARGV < 3 then return redis.error_reply('ERR book_unreported: at least 2 keys and 3 arguments') end
look_at_layout(KEYS[2])
local arg = {struct.unpack(ARGV[2], ARGV[1])}
local count, lines, kind = arg[1], arg[2], ARGV[3]
if #KEYS ~= 2 + 2 * lines or #ARGV ~= 3 + 3 * lines then
  return redis.error_reply('ERR book_unreported: the arguments do not match the counts')
end
if tonumber(redis.call('HGET', KEYS[1], kind) or 0) ~= count then return 1 end
local rows, why = added_rows(arg, 3, lines, KEYS, 2, ARGV, 3)
if why and not rows then return why end
redis.call('HDEL', KEYS[1], kind)
if not rows then return 2 end
write_rows(rows)
return 0
