#!lua
-- Adds to rows of usage without a settlement, once for each number of a source. Everything is computed before the first write.
--
-- KEYS 1 added   string: the number of the source's last addition, in digits. Forgotten ADDED_KEPT_S after it
--      2 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
--      then for each row its hash and the set of teams of its month, as in rows.lua
-- ARGV 1 numbers, packed as doubles: the number of this addition, how many rows; then the numbers of each row (rows.lua)
--      2 the struct format of ARGV 1
--      3… the field of each row, then each row's field where there is no room, then each row's team (empty: not listed)
-- Reply: 0 they are added   1 they were before   2 an amount would exceed 2^53 - 1; nothing was changed
--
-- A worked call: three requests of team `t` were refused, as it is paused.
--   EVALSHA <sha> 4 tollgate:{acme}:added:00ff… tollgate:{acme}:meta tollgate:{acme}:usage:n:20261123:t tollgate:{acme}:denied:202611
--     pack(1, 1,  34560000, 500, 2, 0, 3) <ddddddd 20261123|0|2|1|1|0|0|mpaused| 20261123|0|0|0|7|7|0|(other)(other)paused|(other) t -> 0
if #KEYS < 4 or #ARGV < 5 then return redis.error_reply('ERR add_usage: at least 4 keys and 5 arguments') end
look_at_layout(KEYS[2])
local arg = {struct.unpack(ARGV[2], ARGV[1])}
local number, lines = arg[1], arg[2]
if #KEYS ~= 2 + 2 * lines or #ARGV ~= 2 + 3 * lines or #arg < 2 + 3 * lines + 1 then
  return redis.error_reply('ERR add_usage: the arguments do not match the counts')
end
local last = redis.call('GET', KEYS[1])
if last and tonumber(last) and tonumber(last) >= number then return 1 end
local rows, why = added_rows(arg, 3, lines, KEYS, 2, ARGV, 2)
if not rows then return why or 2 end
redis.call('SET', KEYS[1], ('%.0f'):format(number), 'EX', ADDED_KEPT_S)
write_rows(rows)
return 0
