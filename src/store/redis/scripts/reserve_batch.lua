#!lua
-- Makes several reservations in one step. Adds up what they take from each counter, and takes all of it if all of it fits: then
-- each would have been granted one after the other as well. Otherwise (a limit or a closed gate refuses one, an id exists, the
-- time is out of the range of one, or the clock was set) nothing is taken together, and each is decided by `reserve`, which is
-- reserve.lua itself, in their order. Keys and values are those of reserve.lua.
--
-- KEYS 1 counters, 2 history, 3 index of records: as in reserve.lua; then the record of each reservation
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua); 1 if each is decided by itself in any case; the
--                   earliest time from which a caller has given up; 1 if an id may repeat; the range that is valid for all, from and until; counters, gates, reservations;
--                   then for each counter slot_ms (negative: a budget), the lowest limit, and the sums of kept, expiring and
--                   reservations that hold it; then for each reservation ttl and late
--      2 the struct format of ARGV 1       3 that of the counters' values, concatenated
--      4 that of the reply when all are granted         5 the records' time to live in ms, as in reserve.lua
--      6 for each reservation what `reserve` needs: its holds, its gates, the length of the last argument of reserve.lua; the
--        place of each of its counters among all counters, and of each of its gates among all counters and then gates; the
--        numbers of reserve.lua; the last argument
--      7… the field of each counter, then of each gate, then "!time", then the opaque bytes of each record
-- Reply, packed doubles:
--      0, wall, now, next, used…      all are granted; what each counter had used before the first of them
--      1, then for each reservation the length in bytes and the reply of reserve.lua; a length of 0: its call failed
--
-- A worked call: the reservation of reserve.lua twice, so that 8 of 10 are taken.
--   EVALSHA <sha> 5 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:reservations
--     tollgate:{acme}:reservation:00ff… tollgate:{acme}:reservation:01ff…
--     pack(5500, 0, 2^53-1, 0, 2^53-1, 0, 0, 2^53-1, 1, 0, 2,  1000, 10, 0, 8, 2,  60000, 60000, 60000, 60000) <dddddddddddddddddddd <ddd
--     <ddddd 34560000000 <details> team/chatbot|requests|minute !time <blob> <blob>
--   -> pack(0, 5500, 5500, 5500, 0); the counter is now pack(5, 8, 8)
local argv, keys = ARGV, KEYS
if #keys < 4 or #argv < 8 then return redis.error_reply('ERR reserve_batch: at least 4 keys and 8 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format, counters_format, reply_format, record_kept_ms, details = unpack(argv, 1, 6)
local arg = {read(format, numbers)}
local asked_wall, low, high, apart, given_up, may_repeat, valid_from, valid_until, n, gates, members = unpack(arg, 1, 11)
-- Before the first of the counters' numbers, of which each has five, and of the reservations', two each; in ARGV, before the
-- first of the fields and of the records' bytes, and "!time"; in KEYS, before the first record.
local COUNTERS, LIVES = 11, 11 + 5 * n
local FIELDS, TIME, RECORD_KEYS = 6, 7 + n + gates, 3
if #argv ~= TIME + members or #arg ~= LIVES + 2 * members + 1 or #keys ~= RECORD_KEYS + members then
  return redis.error_reply('ERR reserve_batch: the arguments do not match the counts')
end

-- Each by itself, in order.
local function one_by_one()
  local replies, at = {pack('<d', 1)}, 1
  for m = 1, members do
    local held, gated, length
    held, gated, length, at = read('<ddd', details, at)
    local places = {read('<' .. ('d'):rep(held + gated), details, at)}
    at = places[#places]
    local count = 12 + 4 * held
    local own = {
      details:sub(at, at + 8 * count - 1), '<' .. ('d'):rep(count), '<', '<' .. ('d'):rep(4 + held), record_kept_ms,
      argv[TIME + m],
    }
    at = at + 8 * count
    for i = 1, held + gated do own[6 + i] = argv[FIELDS + places[i]] end
    -- The numbers of reserve.lua begin with 12, and then have four for each hold, of which the first shows the kind.
    for i = 1, held do own[3] = own[3] .. (read('<d', own[1], 8 * (8 + 4 * i) + 1) < 0 and 'dddddd' or 'ddd') end
    own[7 + held + gated], own[8 + held + gated] = argv[TIME], details:sub(at, at + length - 1)
    at = at + length
    local done, reply = pcall(reserve, {keys[1], keys[2], keys[RECORD_KEYS + m], keys[3]}, own)
    if not done or type(reply) ~= 'string' then reply = '' end
    replies[m + 1] = pack('<d', #reply) .. reply
  end
  return table.concat(replies)
end

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, last, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
if apart == 1 or now ~= raw or raw >= given_up or wall < valid_from or wall >= valid_until then return one_by_one() end
if may_repeat == 1 and call('EXISTS', unpack(keys, RECORD_KEYS + 1)) > 0 then return one_by_one() end
for j = 1, gates do
  local gate = value[n + j]
  if gate and (#gate < 8 or now < read('<d', gate)) then return one_by_one() end
end

-- From here on as reserve.lua, with sums for amounts.
local fresh = false
for i = 1, n do
  local v, width = value[i], arg[COUNTERS + 5 * i - 4] > 0 and WINDOW_BYTES or BUDGET_BYTES
  if not v then
    value[i], fresh = ('\0'):rep(width), true
  elseif #v ~= width then
    value[i] = (v .. ('\0'):rep(width)):sub(1, width)
  end
end
local s = {read(counters_format, table.concat(value, '', 1, n))}

local stale, entered, at = nil, false, 1
for i = 1, n do
  local ms, width = arg[COUNTERS + 5 * i - 4], 3
  if ms < 0 then ms, width = -ms, 6 end
  if now >= (s[at] + 1) * ms or now < s[at] * ms then
    local slot = slot_at(now, ms)
    stale = stale or {}
    stale[#stale + 1] = {i, at, slot, ms}
    entered = entered or last < slot * ms
  end
  at = at + width
end
local entries = {}
if stale then
  local fields = {}
  for k, x in ipairs(stale) do fields[k] = argv[FIELDS + x[1]] end
  local history = call('HMGET', keys[2], unpack(fields))
  for k, x in ipairs(stale) do
    local head, past = x[2], nil
    s[head + 1], s[head + 2], past = moved(s[head], s[head + 1], s[head + 2], past_of(history[k]), x[3])
    s[head] = x[3]
    entries[2 * k - 1], entries[2 * k] = fields[k], pack('<d', x[4]) .. past
  end
end

local used, out = value, {}
at = 1
for i = 1, n do
  local h = COUNTERS + 5 * i - 4
  local ms, limit, kept, expiring, holders = arg[h], arg[h + 1], arg[h + 2], arg[h + 3], arg[h + 4]
  local current, total = s[at + 1], s[at + 2]
  out[2 * i - 1] = argv[FIELDS + i]
  if ms > 0 then
    if total - limit + expiring > 0 then return one_by_one() end
    used[i] = total
    out[2 * i] = pack('<ddd', s[at], current + expiring, total + expiring)
    at = at + 3
  else
    local base = s[at + 3]
    if base + total - limit + (kept + expiring) > 0 then return one_by_one() end
    used[i] = base + total
    out[2 * i] = pack('<dddddd', s[at], current + expiring, total + expiring, base + kept, s[at + 4], s[at + 5] + holders)
    at = at + 6
  end
end

if stale then call('HSET', keys[2], unpack(entries)) end
if fresh then
  call('HSET', keys[1], '!layout',
    'head, current, total (budgets: base, settled, open) as little-endian doubles; see reserve.lua')
end
if entered or now - last >= 100 or now - wall ~= ahead then
  out[2 * n + 1], out[2 * n + 2] = TIME_FIELD, time_value(now, now - wall)
end
if #out > 0 then call('HSET', keys[1], unpack(out)) end
local listed = {}
for m = 1, members do
  local key = keys[RECORD_KEYS + m]
  local expires_at = now + arg[LIVES + 2 * m - 1]
  local gone_at = expires_at + arg[LIVES + 2 * m]
  call('SET', key, pack('<dddd', 0, now, expires_at, gone_at) .. argv[TIME + m], 'PX', record_kept_ms)
  listed[2 * m - 1], listed[2 * m] = gone_at, key:sub(-32)
end
call('ZADD', keys[3], unpack(listed))
return pack(reply_format, 0, wall, now, now, unpack(used, 1, n))
