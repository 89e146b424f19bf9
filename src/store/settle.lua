#!lua flags=allow-oom
-- Replaces the holds of a reservation by the amounts really used, exactly once, and books in other budgets too; reports
-- thresholds; adds lines to the spend report; may close a gate or open it, as store/cooldown.rs (after) does.
-- Mirrors domain/counter.rs (can_settle, settle, book, report) and domain/window.rs exactly. Everything is computed before the first write.
-- Also runs when memory is full, as it frees the amounts that it settles.
--
-- KEYS 1 counters, 2 history, 3 record: as in reserve.lua; then for each line of the report
--      its spend hash (line -> 8 doubles) and the set of teams of its month; then for each counter with thresholds the hash of
--      its period: counter -> the reported thresholds, at most 64 doubles, or as many as are watched; then the index of
--      records, as in reserve.lua; then, with a gate, cooldowns:
--      hash: field of a gate -> start, end, refused, requested (doubles), reporter. The end and refused that a decision needs are
--      in the counters as well.
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), keep, counters, gates (0 or 1), close_ms (negative:
--                   open it), lines, holds, counters with thresholds; then for each counter slot_ms (negative: a budget), kept, expiring, actual: first the holds, then
--                   the budgets with no hold; then 8 amounts for each line; then for each counter with thresholds its
--                   index, how many, and their amounts
--      2 the struct format of ARGV 1       3 the record's time to live in ms, as in reserve.lua     4 the settlement's note
--      5… the field of each counter, then of the gate, then "!time", then of each line, then each line's team (empty: not listed),
--      then, with a gate, requested as a packed double and the reporter
-- The settled record: 2, reserved_at, expires_at, gone_at, settled_at, counters, length of the note, thresholds reported; the note;
--      for each counter settled_before, used, settled, open; for each threshold the counter's index and the amount; the opaque bytes that reserve.lua was given
-- Reply, packed doubles: a number, the wall clock, the store's time, and the store's time for the next call at this instant; then
--      0  the record's bytes: settled           2  nothing: no such reservation
--      1  the record's bytes: settled before    3  nothing: an amount would exceed 2^53 - 1; nothing was changed
--
-- A worked call: of the 4 taken at 5500 ms (see reserve.lua) only 1 was used; now it is 5900 ms, keep for a minute.
--   EVALSHA <sha> 4 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:reservation:00ff… tollgate:{acme}:reservations
--     pack(5900, 0, 2^53-1, 60000, 1, 0, 0, 0, 1, 0,  1000, 0, 4, 1) <dddddddddddddd 34560000000 <note> team/chatbot|requests|minute !time
--   -> pack(0, 5900, 5900, 5900) .. record; the counter is now pack(5, 1, 1)
local MAX = 9007199254740991
local SPEND_KEPT_S = 400 * 86400 -- a year and a month after the last new line
local REPORTED_KEPT_S = 62 * 86400 -- the longest period and the latest settlement in it, and as much again
local MAX_REPORTED = 64
local argv, keys = ARGV, KEYS
if #keys < 4 or #argv < 4 then return redis.error_reply('ERR settle: at least 4 keys and 4 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local arg = {read(argv[2], argv[1])}
local n, gates, lines, held, watched = arg[5], arg[6], arg[8], arg[9], arg[10]
if #argv ~= 5 + n + 2 * (gates + lines) or #arg < 11 + 4 * n + 8 * lines + 2 * watched
  or #keys ~= 4 + 2 * lines + watched + gates then
  return redis.error_reply('ERR settle: the arguments do not match the counts')
end

local value = call('HMGET', keys[1], unpack(argv, 5, 5 + n + gates))
local now, wall, raw, _, ahead = store_time(arg[1], arg[2], arg[3], value[1 + n + gates])
local function head(number) return pack('<dddd', number, wall, now, now > raw and now or raw) end

local record = call('GET', keys[3])
if not record then return head(2) end
local state, reserved_at, expires_at, gone_at = read('<dddd', record)
if now >= gone_at then return head(2) end
if state ~= 0 then return head(1) .. record end

-- The counters that need their history: those that enter a new slot, and those that release in an earlier one.
local c, fields, holder = {}, {}, {}
for i = 1, n do
  local h = 4 * i + 7
  local ms, expiring, actual = arg[h], arg[h + 2], arg[h + 3]
  local budget = ms < 0
  if budget then ms = -ms end
  local width = budget and 48 or 24
  local v = value[i] or ''
  if #v ~= width then v = (v .. ('\0'):rep(48)):sub(1, width) end
  local head, current, total, base, settled, open
  if budget then
    head, current, total, base, settled, open = read('<dddddd', v)
  else
    head, current, total = read('<ddd', v)
    base, settled, open = 0, 0, 0
  end
  local slot, was = now / ms, reserved_at / ms
  slot, was = slot - slot % 1, was - was % 1
  local back = budget and expiring or expiring - actual
  local x = {
    budget = budget, ms = ms, head = head, current = current, total = total, base = base, settled = settled,
    open = open, slot = slot, was = was, back = back, kept = arg[h + 1], actual = actual,
  }
  c[i] = x
  if i > held and total == 0 then
    -- Nothing in its history counts, so it may stay as it is.
    if slot ~= head then x.head, x.current = slot, 0 end
  elseif slot ~= head or (back > 0 and was < slot and slot - was <= 60) then
    fields[#fields + 1] = argv[4 + i]
    holder[#fields] = x
  end
end
if #fields > 0 then
  local history = call('HMGET', keys[2], unpack(fields))
  for k, x in ipairs(holder) do
    x.past = (history[k] or ''):sub(9)
    local gap = x.slot - x.head
    if gap < 0 then
      x.past, x.head, x.current = '', x.slot, x.total
    elseif gap > 0 then
      if gap > 60 then x.total = 0 end
      if x.total > 0 then
        x.past = ('\0'):rep(8 * (gap - 1)) .. pack('<d', x.current) .. x.past
        if #x.past > 480 then
          local dropped = {read('<' .. ('d'):rep(#x.past / 8 - 60), x.past, 481)}
          for j = 1, #dropped - 1 do x.total = x.total - dropped[j] end
          x.past = x.past:sub(1, 480)
        end
      end
      if x.total == 0 then x.past = '' end
      x.head, x.current = x.slot, 0
    end
  end
end

for i = 1, n do
  local x = c[i]
  if x.actual > MAX or x.base + x.total + x.actual > MAX or x.settled + x.actual > MAX then
    return head(3)
  end
end
local sums, new = {}, {}
for l = 1, lines do
  local v = call('HGET', keys[2 + 2 * l], argv[5 + n + gates + l])
  local sum = v and {read('<dddddddd', v)} or {0, 0, 0, 0, 0, 0, 0, 0}
  for j = 1, 8 do
    sum[j] = sum[j] + arg[10 + 4 * n + 8 * (l - 1) + j]
    if sum[j] > MAX then return head(3) end
  end
  sums[l], new[l] = pack('<dddddddd', unpack(sum, 1, 8)), not v
end

local out, around = {}, {}
for i = 1, n do
  local x = c[i]
  around[4 * i - 3] = x.settled
  if x.back < 0 then
    x.current, x.total = x.current - x.back, x.total - x.back
  elseif x.was >= x.head then
    local taken = math.min(x.back, x.current)
    x.current, x.total = x.current - taken, x.total - taken
  elseif x.past then
    local from = 8 * (x.head - 1 - x.was)
    if from + 8 <= #x.past then
      local amount = read('<d', x.past, from + 1)
      local taken = math.min(x.back, amount)
      x.past = x.past:sub(1, from) .. pack('<d', amount - taken) .. x.past:sub(from + 9)
      x.total = x.total - taken
    end
  end
  out[2 * i - 1] = argv[4 + i]
  if x.budget then
    x.base = math.max(0, x.base + x.actual - x.kept)
    x.settled = x.settled + x.actual
    if i <= held then x.open = math.max(0, x.open - 1) end
    out[2 * i] = pack('<dddddd', x.head, x.current, x.total, x.base, x.settled, x.open)
  else
    out[2 * i] = pack('<ddd', x.head, x.current, x.total)
  end
  around[4 * i - 2], around[4 * i - 1], around[4 * i] = x.base + x.total, x.settled, x.open
end
local particulars, lifted
-- The reached thresholds that no settlement has reported before.
local crossed, told, at = {}, {}, 10 + 4 * n + 8 * lines
for w = 1, watched do
  local i, count = arg[at + 1] + 1, arg[at + 2]
  local x, known, new = c[i], nil, ''
  for k = at + 3, at + 2 + count do
    if arg[k] <= x.settled then
      if not known then
        known = call('HGET', keys[3 + 2 * lines + w], argv[4 + i]) or ''
        x.told = {read('<' .. ('d'):rep(#known / 8), known)}
        x.told[#x.told] = nil
      end
      local seen = false
      for j = 1, #x.told do seen = seen or x.told[j] == arg[k] end
      if not seen then
        x.told[#x.told + 1] = arg[k]
        new = new .. pack('<d', arg[k])
        crossed[#crossed + 1] = i - 1
        crossed[#crossed + 1] = arg[k]
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
      told[w] = {argv[4 + i], table.concat(kept)}
    else
      told[w] = {argv[4 + i], known .. new}
    end
  end
  at = at + 2 + count
end
if gates == 1 then
  local v, close_ms = value[n + 1], arg[7]
  local ends, refused = 0, 0
  if v and #v >= 16 then ends, refused = read('<dd', v) end
  if close_ms < 0 then
    lifted = now < ends and reserved_at >= refused
  else
    local before = now < ends and call('HGET', keys[#keys], argv[5 + n])
    local start, rest = now, argv[#argv]
    if now < ends then refused = math.max(refused, reserved_at) else refused = reserved_at end
    if before then
      start = read('<d', before)
      if ends > now + close_ms then rest = before:sub(25) end
    end
    ends = math.max(now < ends and ends or 0, now + close_ms)
    particulars = pack('<ddd', start, ends, refused) .. rest
    out[2 * n + 1] = argv[5 + n]
    out[2 * n + 2] = pack('<dd', ends, refused)
  end
end
-- A time later than the caller expected is no step: only a time that was behind is corrected here.
local time = pack('<ddd', now, now > raw and now - wall or ahead, 1)
out[#out + 1], out[#out + 2] = '!time', time
local settled = pack('<dddddddd', 2, reserved_at, expires_at, now + arg[4], now, n, #argv[4], #crossed / 2) .. argv[4]
  .. pack('<' .. ('d'):rep(4 * n), unpack(around)) .. pack('<' .. ('d'):rep(#crossed), unpack(crossed)) .. record:sub(33)

if #fields > 0 then
  local history = {}
  for k, x in ipairs(holder) do
    history[2 * k - 1], history[2 * k] = fields[k], pack('<d', x.ms) .. x.past
  end
  call('HSET', keys[2], unpack(history))
end
call('HSET', keys[1], unpack(out))
if lifted then
  call('HDEL', keys[1], argv[5 + n])
  call('HDEL', keys[#keys], argv[5 + n])
elseif particulars then
  call('HSET', keys[#keys], argv[5 + n], particulars)
  -- Far longer than any of them applies: the server's clock may be set.
  call('PEXPIRE', keys[#keys], argv[3])
end
for w, x in pairs(told) do
  call('HSET', keys[3 + 2 * lines + w], x[1], x[2])
  call('EXPIRE', keys[3 + 2 * lines + w], REPORTED_KEPT_S)
end
for l = 1, lines do
  local key, index, team = keys[2 + 2 * l], keys[3 + 2 * l], argv[5 + n + gates + lines + l]
  call('HSET', key, argv[5 + n + gates + l], sums[l])
  if new[l] then
    call('EXPIRE', key, SPEND_KEPT_S)
    if team ~= '' then
      call('SADD', index, team)
      call('EXPIRE', index, SPEND_KEPT_S)
    end
  end
end
call('SET', keys[3], settled, 'PX', argv[3])
call('ZADD', keys[4 + 2 * lines + watched], now + arg[4], keys[3]:sub(-32))
return head(0) .. settled
