#!lua flags=allow-oom
-- Settles several reservations in one step. Adds up what they change in each counter and each row of usage, and changes that, if it is sure to be what
-- settlements one after the other would do: all records are as expected, and no amount would be taken from a slot that has less, or pass
-- 2^53 - 1, no threshold be reported and no gate opened. Otherwise (or if the clock was set) nothing is changed, and settle.lua is called
-- for each. Keys and values are those of reserve.lua and settle.lua.
--
-- KEYS 1 counters, 2 history, 3 records: as in settle.lua; then for each row of usage its hash and the set of teams of its month; then the
--      hash of reported thresholds of each watched period
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), when the first of the records is gone;
--                   counters, gates, groups, members, lines, periods, watched counters; then for each counter slot_ms (negative: a budget),
--                   actual, kept and how many hold it, what is added in the present slot, how many spans, and for each of these a slot,
--                   1 if it still counts (0: it has ended), and what is taken back from it; then for each group of reservations with the
--                   same counters their number and places; then for each reservation keep and its group; then the numbers of each row (rows.lua);
--                   then for each watched counter its place, that of its period, how many thresholds, and their amounts
--      2 the struct format of ARGV 1
--      3… the field of each counter, then of each gate, then "!time", then of each row, what stands for it where there is no room, and its team, then for each
--      reservation its id, its record as it is expected, and what the settled record has of the program, as in settle.lua
-- Reply, packed doubles:
--      0, wall, now, next, then for each counter used, settled, open      all are settled; the counters before the first of them
--      1                                                                  nothing was changed: each is to be settled by itself
--
-- A worked call: the settlement of settle.lua in a batch of one.
--   EVALSHA <sha> 3 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:records
--     pack(5900, 0, 2^53-1, 125500, 1, 0, 1, 1, 0, 0, 0,  1000, 1, 0, 1, 0, 1, 5, 1, 3,  1, 1,  60000, 1) <dddddddddddddddddddddddd
--     team/chatbot|requests|minute !time <id> <record> <noted>
--   -> pack(0, 5900, 5900, 5900, 4, 0, 0); the counter is now pack(5, 1, 1)
local argv, keys = ARGV, KEYS
if #keys < 3 or #argv < 6 then return redis.error_reply('ERR settle_batch: at least 3 keys and 6 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format = unpack(argv, 1, 2)
local arg = {read(format, numbers)}
local asked_wall, low, high, gone_before, n, gates, groups, members, lines, periods, watched = unpack(arg, 1, 11)
-- In ARGV, before the first of the counters' fields and of the records, and "!time", which the rows' fields follow; in KEYS, before the
-- first row and hash of thresholds.
local FIELDS, TIME = 2, 3 + n + gates
local RECORDS = TIME + 3 * lines
local LINE_KEYS, REPORTED = 3, 3 + 2 * lines
if #argv ~= RECORDS + 3 * members or #keys ~= REPORTED + periods then
  return redis.error_reply('ERR settle_batch: the arguments do not match the counts')
end
local ONE_BY_ONE = pack('<d', 1)

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, _, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
if now ~= raw or now >= gone_before then return ONE_BY_ONE end
for j = 1, gates do
  local gate = value[n + j]
  if gate and (#gate < 8 or now < read('<d', gate)) then return ONE_BY_ONE end
end
local ids = {}
for m = 1, members do ids[m] = argv[RECORDS + 3 * m - 2] end
local records = call('HMGET', keys[3], unpack(ids))
for m = 1, members do
  if records[m] ~= argv[RECORDS + 3 * m - 1] then return ONE_BY_ONE end
end

-- The counters that need their history: those that enter a new slot, and those that release in an earlier one.
local c, fields, holder, at = {}, {}, {}, 12
for i = 1, n do
  local ms, actual, kept, holders, more, spans = unpack(arg, at, at + 5)
  local x = {at = at + 6, spans = spans, actual = actual, kept = kept, holders = holders, more = more, budget = ms < 0}
  at = at + 6 + 3 * spans
  if x.budget then ms = -ms end
  local v, width = value[i] or '', x.budget and BUDGET_BYTES or WINDOW_BYTES
  if #v ~= width then v = (v .. ('\0'):rep(width)):sub(1, width) end
  if x.budget then
    x.head, x.current, x.total, x.base, x.settled, x.open = read('<dddddd', v)
  else
    x.head, x.current, x.total = read('<ddd', v)
    x.base, x.settled, x.open = 0, 0, 0
  end
  x.ms, x.slot = ms, slot_at(now, ms)
  if holders == 0 and x.total == 0 then
    -- Nothing in its history counts, so it may stay as it is.
    if x.slot ~= x.head then x.head, x.current = x.slot, 0 end
  else
    local needs_past = x.slot ~= x.head
    for k = x.at, at - 1, 3 do
      needs_past = needs_past or arg[k] < x.slot and x.slot - arg[k] <= WINDOW_SLOTS
    end
    if needs_past then
      fields[#fields + 1] = argv[FIELDS + i]
      holder[#fields] = x
    end
  end
  c[i] = x
end
move_all(holder, fields, keys[2])

local states, reply, out = {}, {0, wall, now, now}, {}
for i = 1, n do
  local x = c[i]
  local used = x.base + x.total
  reply[3 * i + 2], reply[3 * i + 3], reply[3 * i + 4] = used, x.settled, x.open
  for k = x.at, x.at + 3 * x.spans - 1, 3 do
    local was, counts, back = unpack(arg, k, k + 2)
    if was >= x.slot then
      if counts == 0 or back > x.current then return ONE_BY_ONE end
      x.current, x.total = x.current - back, x.total - back
    elseif x.slot - was > WINDOW_SLOTS then
      if counts == 1 then return ONE_BY_ONE end
    else
      local before = x.total
      if counts == 0 then return ONE_BY_ONE end
      x.current, x.total, x.past = taken_back(x.head, x.current, x.total, x.past, was, back)
      if x.total ~= before - back then return ONE_BY_ONE end
    end
  end
  if used + x.actual > MAX_AMOUNT or x.settled + x.actual > MAX_AMOUNT then return ONE_BY_ONE end
  x.current, x.total = x.current + x.more, x.total + x.more
  out[2 * i - 1] = argv[FIELDS + i]
  if x.budget then
    if x.base < x.kept or x.open < x.holders then return ONE_BY_ONE end
    states[i] = pack('<I7I7I7', used, x.settled, x.open)
    x.settled = x.settled + x.actual
    out[2 * i] = pack('<dddddd', x.head, x.current, x.total, x.base - x.kept + x.actual, x.settled, x.open - x.holders)
  else
    states[i] = pack('<I7', used)
    out[2 * i] = pack('<ddd', x.head, x.current, x.total)
  end
end

local stated = {}
for g = 1, groups do
  local own = {}
  for k = 1, arg[at] do own[k] = states[arg[at + k]] end
  at = at + 1 + #own
  own = table.concat(own)
  stated[g] = '\0' .. pack('<I2', #own) .. own
end
local MEMBERS, LINES = at - 1, at - 1 + 2 * members
local rows
-- Foreign data fails the call that it concerns, and no other; so does an index that could not be written.
rows, at = added_rows(arg, LINES + 1, lines, keys, LINE_KEYS, argv, TIME)
if not rows then return ONE_BY_ONE end
for _ = 1, watched do
  local place, period, count = unpack(arg, at, at + 2)
  local told
  for k = at + 3, at + 2 + count do
    -- What is reached was reported, or else is to be reported by one of them.
    if arg[k] <= c[place].settled then
      if not told then
        told = {}
        local known = redis.pcall('HGET', keys[REPORTED + period], argv[FIELDS + place]) or ''
        if type(known) == 'table' then return ONE_BY_ONE end
        for j = 1, #known - 7, 8 do told[read('<d', known, j)] = true end
      end
      if not told[arg[k]] then return ONE_BY_ONE end
    end
  end
  at = at + 3 + count
end
if #fields > 0 then
  local history = {}
  for k, x in ipairs(holder) do
    history[2 * k - 1], history[2 * k] = fields[k], pack('<d', x.ms) .. x.past
  end
  call('HSET', keys[2], unpack(history))
end
out[2 * n + 1], out[2 * n + 2] = TIME_FIELD, time_value(now, ahead)
call('HSET', keys[1], unpack(out))
write_rows(rows)
local settled, settled_at, keep, header = {}, pack('<I7', now), nil, nil
for m = 1, members do
  local r = RECORDS + 3 * m
  local record = argv[r - 1]
  if arg[MEMBERS + 2 * m - 1] ~= keep then
    keep = arg[MEMBERS + 2 * m - 1]
    header = pack('<BI7', 3, now + keep)
  end
  settled[2 * m - 1] = argv[r - 2]
  settled[2 * m] = header .. record:sub(9, RECORD_BYTES) .. settled_at .. argv[r] .. stated[arg[MEMBERS + 2 * m]]
    .. record:sub(RECORD_BYTES + 1)
end
call('HSET', keys[3], unpack(settled))
return pack('<' .. ('d'):rep(#reply), unpack(reply))
