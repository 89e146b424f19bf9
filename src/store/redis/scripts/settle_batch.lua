#!lua flags=allow-oom
-- Settles several reservations in one step, each as settle.lua does and in their order: counters, reported thresholds and lines are
-- read once, follow all settlements, and are written once. Where anything is unusual (a reservation is not open any more, a gate
-- is closed, an amount would exceed 2^53 - 1, or the clock was set) nothing was written yet, and each is settled by `settle`,
-- which is settle.lua itself. Keys and values are those of reserve.lua and settle.lua. A settlement that closes a gate is
-- unusual, too.
--
-- KEYS 1 counters, 2 history, 3 index of records, 4 cooldowns: as in settle.lua; then the record of each reservation; then for
--      each line its spend hash and the set of teams of its month; then the hash of reported thresholds of each watched period
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), 1 if each is settled by itself in any case;
--                   counters, gates, reservations, lines, watched periods; then for each counter slot_ms (negative: a budget);
--                   then for each line the sums of its 8 amounts
--      2 the struct format of ARGV 1       3 the records' time to live in ms, as in reserve.lua
--      4 for each reservation: how many counters, gates, lines, watched counters and numbers it has, and the length of
--        the last argument of settle.lua; the places of the first four (counters and gates: among all counters and then gates;
--        watched counters: that of their period); the numbers of settle.lua; its last argument, if it has a gate
--      5… the field of each counter, then of each gate, then "!time", then of each line, then each line's team, then each note
-- Reply, packed doubles:
--      0, wall, now, next, then for each reservation the length in bytes and its settled record without its opaque bytes
--      1, then for each reservation the length in bytes and the reply of settle.lua; a length of 0: its call failed
--
-- A worked call: the settlement of settle.lua in a batch of one.
--   EVALSHA <sha> 5 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:reservations tollgate:{acme}:cooldowns
--     tollgate:{acme}:reservation:00ff… pack(5900, 0, 2^53-1, 0, 1, 0, 1, 0, 0,  1000) <dddddddddd 34560000000 <details>
--     team/chatbot|requests|minute !time <note>
--   -> pack(0, 5900, 5900, 5900, length) .. record; the counter is now pack(5, 1, 1)
local argv, keys = ARGV, KEYS
if #keys < 5 or #argv < 6 then return redis.error_reply('ERR settle_batch: at least 5 keys and 6 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format, record_kept_ms, details = unpack(argv, 1, 4)
local arg = {read(format, numbers)}
local asked_wall, low, high, apart, n, gates, members, lines, watched = unpack(arg, 1, 9)
-- Before the first of the counters' numbers and of the lines', eight each; in ARGV, before the first of the counters' fields, of
-- the lines', of the lines' teams and of the notes, and "!time"; in KEYS, before the first record, line and hash of thresholds.
local COUNTERS, LINES = 9, 9 + n
local FIELDS, TIME = 4, 5 + n + gates
local LINE_FIELDS, TEAMS, NOTES = TIME, TIME + lines, TIME + 2 * lines
local RECORD_KEYS, LINE_KEYS, REPORTED = 4, 4 + members, 4 + members + 2 * lines
if #argv ~= NOTES + members or #arg ~= LINES + 8 * lines + 1 or #keys ~= REPORTED + watched then
  return redis.error_reply('ERR settle_batch: the arguments do not match the counts')
end

-- What each reservation brings: how many counters, gates, lines and watched counters, their places in that order, and where in
-- the details its numbers begin and how many there are.
local own, at = {}, 1
for m = 1, members do
  local x = {}
  x.n, x.gates, x.lines, x.watched, x.count, x.rest, at = read('<dddddd', details, at)
  x.places = {read('<' .. ('d'):rep(x.n + x.gates + x.lines + x.watched), details, at)}
  x.at = x.places[#x.places]
  at = x.at + 8 * x.count + x.rest
  own[m] = x
end

-- Each by itself, in order.
local function one_by_one()
  local replies = {pack('<d', 1)}
  for m, x in ipairs(own) do
    local fields, gated, listed = x.n, x.n + x.gates, x.n + x.gates + x.lines
    local k = {keys[1], keys[2], keys[RECORD_KEYS + m]}
    local a = {details:sub(x.at, x.at + 8 * x.count - 1), '<' .. ('d'):rep(x.count), record_kept_ms, argv[NOTES + m]}
    for i = 1, gated do a[#a + 1] = argv[FIELDS + x.places[i]] end
    a[#a + 1] = argv[TIME]
    for i = gated + 1, listed do
      local line = x.places[i]
      k[#k + 1], k[#k + 2] = keys[LINE_KEYS + 2 * line - 1], keys[LINE_KEYS + 2 * line]
      a[#a + 1] = argv[LINE_FIELDS + line]
    end
    for i = gated + 1, listed do a[#a + 1] = argv[TEAMS + x.places[i]] end
    for i = listed + 1, listed + x.watched do k[#k + 1] = keys[REPORTED + x.places[i]] end
    k[#k + 1] = keys[3]
    if gated > fields then
      local rest = x.at + 8 * x.count
      k[#k + 1], a[#a + 1] = keys[4], details:sub(rest, rest + x.rest - 1)
    end
    local done, reply = pcall(settle, k, a)
    if not done or type(reply) ~= 'string' then reply = '' end
    replies[m + 1] = pack('<d', #reply) .. reply
  end
  return table.concat(replies)
end

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, _, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
if apart == 1 or now ~= raw then return one_by_one() end
for j = 1, gates do
  local gate = value[n + j]
  if gate and (#gate < 8 or now < read('<d', gate)) then return one_by_one() end
end
local record = call('MGET', unpack(keys, RECORD_KEYS + 1, RECORD_KEYS + members))
for m = 1, members do
  if not record[m] or #record[m] < 32 then return one_by_one() end
  local state, _, _, gone_at = read('<dddd', record[m])
  if state ~= 0 or now >= gone_at then return one_by_one() end
end

-- The counters as they stand after the settlements so far.
local c = {}
local function counter(place)
  local ms = arg[COUNTERS + place]
  local budget = ms < 0
  if budget then ms = -ms end
  local v, width = value[place] or '', budget and BUDGET_BYTES or WINDOW_BYTES
  if #v ~= width then v = (v .. ('\0'):rep(width)):sub(1, width) end
  local x = {budget = budget, ms = ms, slot = slot_at(now, ms), base = 0, settled = 0, open = 0, field = argv[FIELDS + place]}
  if budget then
    x.head, x.current, x.total, x.base, x.settled, x.open = read('<dddddd', v)
  else
    x.head, x.current, x.total = read('<ddd', v)
  end
  c[place] = x
  return x
end

-- Reports what counter `x` has reached of the `count` thresholds after `from` in `a`, as settle.lua does; appends to `crossed`.
-- Returns false if what was reported cannot be read.
local function report(x, reported, a, from, count, i, crossed)
  local new = false
  for k = from + 1, from + count do
    if a[k] <= x.settled then
      if not x.told then
        local known = redis.pcall('HGET', reported, x.field) or ''
        if type(known) == 'table' then return false end
        x.told = {read('<' .. ('d'):rep(#known / 8), known)}
        x.told[#x.told] = nil
        x.reported = reported
      end
      local seen = false
      for j = 1, #x.told do seen = seen or x.told[j] == a[k] end
      if not seen then
        new = true
        x.told[#x.told + 1] = a[k]
        crossed[#crossed + 1] = i - 1
        crossed[#crossed + 1] = a[k]
      end
    end
  end
  if not new then return true end
  x.has_news = true
  -- The oldest are forgotten, but never one that is watched: it would be reported again.
  local excess = #x.told - MAX_REPORTED
  if excess > 0 then
    local watches, kept = {}, {}
    for k = from + 1, from + count do watches[a[k]] = true end
    for j = 1, #x.told do
      if excess > 0 and not watches[x.told[j]] then
        excess = excess - 1
      else
        kept[#kept + 1] = x.told[j]
      end
    end
    x.told = kept
  end
  return true
end

local settled = {}
for m, o in ipairs(own) do
  local a, places = {read('<' .. ('d'):rep(o.count), details, o.at)}, o.places
  local keep, held = a[4], a[9]
  local _, reserved_at, expires_at = read('<ddd', record[m])
  local around = {}
  for i = 1, o.n do
    local x = c[places[i]] or counter(places[i])
    -- The numbers of settle.lua begin with 10, and then have four for each counter.
    local kept, expiring, actual = a[10 + 4 * i - 2], a[10 + 4 * i - 1], a[10 + 4 * i]
    local was = slot_at(reserved_at, x.ms)
    local back = x.budget and expiring or expiring - actual
    if i > held and x.total == 0 then
      -- Nothing in its history counts, so it may stay as it is.
      if x.slot ~= x.head then x.head, x.current = x.slot, 0 end
    elseif x.slot ~= x.head or (back > 0 and was < x.slot and x.slot - was <= WINDOW_SLOTS) then
      if not x.past then x.past = past_of(call('HGET', keys[2], x.field)) end
      x.current, x.total, x.past = moved(x.head, x.current, x.total, x.past, x.slot)
      x.head, x.keeps_past = x.slot, true
    end
    if actual > MAX_AMOUNT or x.base + x.total + actual > MAX_AMOUNT or x.settled + actual > MAX_AMOUNT then
      return one_by_one()
    end
    around[4 * i - 3] = x.settled
    if back < 0 then
      x.current, x.total = x.current - back, x.total - back
    else
      x.current, x.total, x.past = taken_back(x.head, x.current, x.total, x.past, was, back)
    end
    if x.budget then
      x.base = math.max(0, x.base + actual - kept)
      x.settled = x.settled + actual
      if i <= held then x.open = math.max(0, x.open - 1) end
    end
    around[4 * i - 2], around[4 * i - 1], around[4 * i] = x.base + x.total, x.settled, x.open
  end
  local crossed, threshold = {}, 10 + 4 * o.n + 8 * o.lines
  for w = 1, o.watched do
    local i, count = a[threshold + 1] + 1, a[threshold + 2]
    local reported = keys[REPORTED + places[o.n + o.gates + o.lines + w]]
    if not report(c[places[i]], reported, a, threshold + 2, count, i, crossed) then return one_by_one() end
    threshold = threshold + 2 + count
  end
  local note = argv[NOTES + m]
  settled[m] = pack('<dddddddd', 2, reserved_at, expires_at, now + keep, now, o.n, #note, #crossed / 2) .. note
    .. pack('<' .. ('d'):rep(4 * o.n), unpack(around)) .. pack('<' .. ('d'):rep(#crossed), unpack(crossed))
  o.gone_at = now + keep
end
local sums, new = {}, {}
for l = 1, lines do
  local v = redis.pcall('HGET', keys[LINE_KEYS + 2 * l - 1], argv[LINE_FIELDS + l])
  -- Foreign data fails the call that it concerns, and no other; so does an index that could not be written.
  if type(v) == 'table' or v and #v ~= 64 then return one_by_one() end
  if not v and type(redis.pcall('SCARD', keys[LINE_KEYS + 2 * l])) == 'table' then return one_by_one() end
  local sum = v and {read('<dddddddd', v)} or {0, 0, 0, 0, 0, 0, 0, 0}
  for j = 1, 8 do
    sum[j] = sum[j] + arg[LINES + 8 * (l - 1) + j]
    if sum[j] > MAX_AMOUNT then return one_by_one() end
  end
  sums[l], new[l] = pack('<dddddddd', unpack(sum, 1, 8)), not v
end

local out, history = {}, {}
for i = 1, n do
  local x = c[i]
  out[2 * i - 1] = x.field
  if x.budget then
    out[2 * i] = pack('<dddddd', x.head, x.current, x.total, x.base, x.settled, x.open)
  else
    out[2 * i] = pack('<ddd', x.head, x.current, x.total)
  end
  if x.keeps_past then
    history[#history + 1] = x.field
    history[#history + 1] = pack('<d', x.ms) .. x.past
  end
  if x.has_news then
    local told = pack('<' .. ('d'):rep(#x.told), unpack(x.told))
    call('HSET', x.reported, x.field, told)
    call('EXPIRE', x.reported, REPORTED_KEPT_S)
  end
end
out[2 * n + 1], out[2 * n + 2] = TIME_FIELD, time_value(now, ahead)
call('HSET', keys[1], unpack(out))
if #history > 0 then call('HSET', keys[2], unpack(history)) end
for l = 1, lines do
  local key, index, team = keys[LINE_KEYS + 2 * l - 1], keys[LINE_KEYS + 2 * l], argv[TEAMS + l]
  call('HSET', key, argv[LINE_FIELDS + l], sums[l])
  if new[l] then
    call('EXPIRE', key, SPEND_KEPT_S)
    if team ~= '' then
      call('SADD', index, team)
      call('EXPIRE', index, SPEND_KEPT_S)
    end
  end
end
local replies, listed = {pack('<dddd', 0, wall, now, now)}, {}
for m, o in ipairs(own) do
  local key = keys[RECORD_KEYS + m]
  call('SET', key, settled[m] .. record[m]:sub(33), 'PX', record_kept_ms)
  listed[2 * m - 1], listed[2 * m] = o.gone_at, key:sub(-32)
  replies[m + 1] = pack('<d', #settled[m]) .. settled[m]
end
call('ZADD', keys[3], unpack(listed))
return table.concat(replies)
