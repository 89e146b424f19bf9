#!lua flags=allow-oom
-- Replaces the holds of a reservation by the amounts really used, exactly once, and books in other budgets too; reports
-- thresholds; adds to rows of usage; may close a gate or open it, as store/cooldown.rs (after) does.
-- Mirrors domain/counter.rs (can_settle, settle, book, report) and domain/window.rs exactly. Everything is computed before the first write.
-- Also runs when memory is full, as it frees the amounts that it settles.
--
-- KEYS 1 counters, 2 history, 3 records: as in reserve.lua; 4 earlier: as in records.lua; then for each row of usage
--      its hash (row -> amounts, see rows.lua) and the set of teams of its month; then for each counter with thresholds the hash of
--      its period: counter -> the reported thresholds, at most MAX_REPORTED doubles, or as many as are watched; then, with any
--      of those, crossings: as in outbox.lua; then, with a gate, cooldowns:
--      hash: field of a gate -> start, end, refused, requested (doubles), reporter. The end and refused that a decision needs are
--      in the counters as well.
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), keep, counters, cooldown_change (0: none; 1: close the
--                   gate for close_ms; 2: open it), close_ms, lines, holds, counters with thresholds; then for each counter slot_ms (negative: a budget), kept, expiring, actual: first the holds, then
--                   the budgets with no hold; then the numbers of each row (rows.lua); then for each counter with thresholds its
--                   index, how many, and their amounts
--      2 the struct format of ARGV 1       3 the id      4 what the settled record has of the program: see below
--      5 the record, if it is settled only as it is expected (empty: as it is)
--      6… the field of each counter, then of the gate, then "!time", then of each row, then each row's field where there is no room (empty: none), then
--      each row's team (empty: not listed), then, with a gate, requested as a packed double and the reporter
-- The settled record: as in records.lua with the state 3; settled_at in 7 bytes; ARGV 4, which begins with 2 bytes of length and the note; a
--      byte that counts the thresholds reported, and for each the counter's index in 2 bytes and the amount in 7; 2 bytes of length, and
--      for each counter what is used in 7 bytes, of a budget followed by what was settled before and what is open, each as it is after
--      this settlement plus what ARGV 4 says; the body
-- Reply, packed doubles: a number, the wall clock, the store's time, and the store's time for the next call at this instant; then
--      0  the record's bytes without its body   2  nothing: no such reservation
--      1  the record's bytes: settled before    3  nothing: an amount would exceed 2^53 - 1; nothing was changed
--                                               4  nothing: the record is not as expected; nothing was changed
--
-- A worked call: of the 4 taken at 5500 ms (see reserve.lua) only 1 was used; now it is 5900 ms, keep for a minute.
--   EVALSHA <sha> 4 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:records tollgate:{acme}:reservations
--     pack(5900, 0, 2^53-1, 60000, 1, 0, 0, 0, 1, 0,  1000, 0, 4, 1) <dddddddddddddd <id> <noted> "" team/chatbot|requests|minute !time
--   -> pack(0, 5900, 5900, 5900) .. record; the counter is now pack(5, 1, 1)
local argv, keys = ARGV, KEYS
if #keys < 4 or #argv < 5 then return redis.error_reply('ERR settle: at least 4 keys and 5 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format, id, noted, expected = unpack(argv, 1, 5)
local arg = {read(format, numbers)}
local asked_wall, low, high, keep, n, cooldown_change, close_ms, lines, held, watched = unpack(arg, 1, 10)
local gates = math.min(cooldown_change, 1)
-- Before the first of the counters' numbers, of which each counter has four; of the rows'.
local COUNTERS, LINES = 10, 10 + 4 * n
-- In ARGV, before the first of the counters' fields; the gate, and "!time", which the rows' fields follow.
local FIELDS, GATE, TIME = 5, 6 + n, 6 + n + gates
-- In KEYS, before the first of the rows' hashes and of the hashes of reported thresholds.
local SPEND, REPORTED = 4, 4 + 2 * lines
if #argv ~= TIME + 3 * lines + gates or #arg < LINES + 3 * lines + 2 * watched + 1 or #keys ~= REPORTED + watched + math.min(watched, 1) + gates then
  return redis.error_reply('ERR settle: the arguments do not match the counts')
end

-- What a reported threshold adds to the outbox, as store/outbox.rs (crossings) writes it.
local function crossing(wall, id, number, amount, settled, counter)
  local random = id:sub(11):gsub('.', function(byte) return ('%02x'):format(byte:byte()) end)
  local name = ('%012x%s%04x_open'):format(wall, random, number)
  return pack('<B', #name) .. name .. pack('<BI7I7', CROSSING_VERSION, amount, settled) .. counter
end

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, _, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
local function head(number) return pack('<dddd', number, wall, now, math.max(now, raw)) end

local record = record_of(keys[3], keys[4], id)
if expected ~= '' and record ~= expected then return head(4) end
if not record then return head(2) end
local state, gone_at, reserved_at, expires_at = read(RECORD, record)
if now >= gone_at then return head(2) end
if state ~= 0 then return head(1) .. record end

-- The counters that need their history: those that enter a new slot, and those that release in an earlier one.
local c, fields, holder = {}, {}, {}
for i = 1, n do
  local h = COUNTERS + 4 * i - 3
  local ms, kept, expiring, actual = arg[h], arg[h + 1], arg[h + 2], arg[h + 3]
  local budget = ms < 0
  if budget then ms = -ms end
  local width = budget and BUDGET_BYTES or WINDOW_BYTES
  local v = value[i] or ''
  if #v ~= width then v = (v .. ('\0'):rep(width)):sub(1, width) end
  local head, current, total, base, settled, open
  if budget then
    head, current, total, base, settled, open = read('<dddddd', v)
  else
    head, current, total = read('<ddd', v)
    base, settled, open = 0, 0, 0
  end
  local slot, was = slot_at(now, ms), slot_at(reserved_at, ms)
  local back = budget and expiring or expiring - actual
  local x = {
    budget = budget, ms = ms, head = head, current = current, total = total, base = base, settled = settled,
    open = open, slot = slot, was = was, back = back, kept = kept, actual = actual,
  }
  c[i] = x
  if i > held and total == 0 then
    -- Nothing in its history counts, so it may stay as it is.
    if slot ~= head then x.head, x.current = slot, 0 end
  elseif slot ~= head or (back > 0 and was < slot and slot - was <= WINDOW_SLOTS) then
    fields[#fields + 1] = argv[FIELDS + i]
    holder[#fields] = x
  end
end
move_all(holder, fields, keys[2])

for i = 1, n do
  local x = c[i]
  if x.actual > MAX_AMOUNT or x.base + x.total + x.actual > MAX_AMOUNT or x.settled + x.actual > MAX_AMOUNT then
    return head(3)
  end
end
local rows, THRESHOLDS = added_rows(arg, LINES + 1, lines, keys, SPEND, argv, TIME)
if not rows then return THRESHOLDS or head(3) end

local out, states = {}, {}
for i = 1, n do
  local x = c[i]
  local before = x.settled
  if x.back < 0 then
    x.current, x.total = x.current - x.back, x.total - x.back
  else
    x.current, x.total, x.past = taken_back(x.head, x.current, x.total, x.past, x.was, x.back)
  end
  out[2 * i - 1] = argv[FIELDS + i]
  if x.budget then
    x.base = math.max(0, x.base + x.actual - x.kept)
    x.settled = x.settled + x.actual
    if i <= held then x.open = math.max(0, x.open - 1) end
    out[2 * i] = pack('<dddddd', x.head, x.current, x.total, x.base, x.settled, x.open)
  else
    out[2 * i] = pack('<ddd', x.head, x.current, x.total)
  end
  states[i] = x.budget and pack('<I7I7I7', x.base + x.total, before, x.open) or pack('<I7', x.total)
end
local particulars, lifted
-- The reached thresholds that no settlement has reported before.
local crossed, told, at, items = {}, {}, THRESHOLDS - 1, {}
for w = 1, watched do
  local i, count = arg[at + 1] + 1, arg[at + 2]
  local x, known, new = c[i], nil, ''
  for k = at + 3, at + 2 + count do
    if arg[k] <= x.settled then
      if not known then
        known = call('HGET', keys[REPORTED + w], argv[FIELDS + i]) or ''
        x.told = {read('<' .. ('d'):rep(#known / 8), known)}
        x.told[#x.told] = nil
      end
      local seen = false
      for j = 1, #x.told do seen = seen or x.told[j] == arg[k] end
      if not seen then
        x.told[#x.told + 1] = arg[k]
        new = new .. pack('<d', arg[k])
        items[#items + 1] = crossing(wall, id, #crossed, arg[k], x.settled, argv[FIELDS + i])
        crossed[#crossed + 1] = pack('<I2I7', i - 1, arg[k])
      end
    end
  end
  if new ~= '' then
    -- The oldest are forgotten, but never one that is watched: it would be reported again.
    local excess = #x.told - MAX_REPORTED
    if excess > 0 then
      local watches, kept = {}, {}
      for k = at + 3, at + 2 + count do watches[arg[k]] = true end
      for j = 1, #x.told do
        if excess > 0 and not watches[x.told[j]] then
          excess = excess - 1
        else
          kept[#kept + 1] = pack('<d', x.told[j])
        end
      end
      told[w] = {argv[FIELDS + i], table.concat(kept)}
    else
      told[w] = {argv[FIELDS + i], known .. new}
    end
  end
  at = at + 2 + count
end
-- A key that is of something else costs the alert, and not the settlement.
if #items > 0 and type(redis.pcall('LLEN', keys[REPORTED + watched + 1])) == 'table' then items = {} end
if gates == 1 then
  call('HLEN', keys[#keys])
  local v = value[GATE - FIELDS]
  local ends, refused = 0, 0
  if v and #v >= 16 then ends, refused = read('<dd', v) end
  if cooldown_change == 2 then
    lifted = now < ends and reserved_at >= refused
  else
    local before = now < ends and call('HGET', keys[#keys], argv[GATE])
    local start, rest = now, argv[#argv]
    if now < ends then refused = math.max(refused, reserved_at) else refused = reserved_at end
    if before then
      start = read('<d', before)
      if ends > now + close_ms then rest = before:sub(25) end
    end
    ends = math.max(now < ends and ends or 0, now + close_ms)
    particulars = pack('<ddd', start, ends, refused) .. rest
    out[2 * n + 1] = argv[GATE]
    out[2 * n + 2] = pack('<dd', ends, refused)
  end
end
-- A time later than the caller expected is no step: only a time that was behind is corrected here.
out[#out + 1] = TIME_FIELD
out[#out + 1] = time_value(now, now > raw and now - wall or ahead)
local stated = table.concat(states)
local settled = pack(RECORD, 3, now + keep, reserved_at, expires_at) .. pack('<I7', now) .. noted .. pack('<B', #crossed)
  .. table.concat(crossed) .. pack('<I2', #stated) .. stated

if #fields > 0 then
  local history = {}
  for k, x in ipairs(holder) do
    history[2 * k - 1], history[2 * k] = fields[k], pack('<d', x.ms) .. x.past
  end
  call('HSET', keys[2], unpack(history))
end
call('HSET', keys[1], unpack(out))
if lifted then
  call('HDEL', keys[1], argv[GATE])
  call('HDEL', keys[#keys], argv[GATE])
elseif particulars then
  call('HSET', keys[#keys], argv[GATE], particulars)
  -- Far longer than any of them applies: the server's clock may be set.
  call('PEXPIRE', keys[#keys], RECORD_KEPT_MS)
end
for w, x in pairs(told) do
  call('HSET', keys[REPORTED + w], x[1], x[2])
  call('EXPIRE', keys[REPORTED + w], REPORTED_KEPT_S)
end
if #items > 0 then call('RPUSH', keys[REPORTED + watched + 1], unpack(items)) end
write_rows(rows)
call('HSET', keys[3], id, settled .. record:sub(RECORD_BYTES + 1))
return head(0) .. settled
