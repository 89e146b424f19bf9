#!lua
-- Takes all holds of a reservation or none, with one HMGET and two HSETs whatever the number of holds.
-- Mirrors domain/counter.rs (check, take) and domain/window.rs exactly; all numbers are integers below 2^53.
--
-- KEYS 1 counters   hash: counter -> window (WINDOW_BYTES: head slot, current, total) or
--                   budget (BUDGET_BYTES: the same, then base, settled, open); "!gate/<name>" -> until, and what settle.lua needs.
--                   Every number is a little-endian double. "!time": see store_time.lua; slots, "until" and the instants of
--                   records are in the store's time.
--      2 history    hash: counter -> slot_ms, then the amounts of the slots before head, newest first, at most WINDOW_SLOTS;
--                   amounts missing at the end are zero. Touched only when time enters a new slot.
--      3 records, 4 terms, 5 earlier: as in records.lua
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), the store's time from which on the caller has
--                   given up, may_repeat, dry_run, valid from, valid until (by the wall clock), ttl, late, holds, gates;
--                   then for each hold slot_ms (negative: a budget), limit, kept, expiring
--      2 the struct format of ARGV 1       3 that of the holds' counters, concatenated
--      4 that of the reply when granted    5 the id, 16 bytes      6 the record's body
--      7 the terms that it refers to (empty: none)      8 what they are, if Redis may not have them (empty: it has)
--      9… the field of each hold's counter, then of each gate, then "!time", then the note of settlements that leave their
--      id free (empty: none): a record that was settled with it is replaced
-- Reply, packed doubles: a number, then the wall clock, the store's time, and the store's time for the next call at this instant:
--      0, wall, now, next, used…                                                     granted
--      1, wall, now, next, used…, m, m × (hold, frees_at or 0), g, g × (gate, until) refused
--      2, wall, now, next, the record's bytes                                        the reservation exists
--      3, wall, now, next                                               too late, or outside the valid range
--      4, wall, now, next                                               it would be granted, but ARGV 8 is wanted
--
-- A worked call: one window of 1000 ms slots, limit 10, take 4 at 5500 ms; nothing was used.
--   EVALSHA <sha> 5 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:records tollgate:{acme}:terms
--     tollgate:{acme}:reservations
--     pack(5500, 0, 2^53-1, 2^53-1, 0, 0, 0, 2^53-1, 60000, 60000, 1, 0,  1000, 10, 0, 4) <dddddddddddddddd <ddd <ddddd
--     <id> <body> "" "" team/chatbot|requests|minute !time ""
--   -> pack(0, 5500, 5500, 5500, 0); the counter is now pack(5, 4, 4), "!time" pack(5500, 0, 5)
local argv, keys = ARGV, KEYS
if #keys ~= 5 or #argv < 8 then return redis.error_reply('ERR reserve: 5 keys and at least 8 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format, counters_format, reply_format, id, body, terms, terms_body = unpack(argv, 1, 8)
local arg = {read(format, numbers)}
local asked_wall, low, high, given_up, may_repeat, dry_run, valid_from, valid_until, ttl, late, n, gates = unpack(arg, 1, 12)
-- Before the first of the holds' numbers, of which each hold has four, and of the fields in ARGV; and the last two of ARGV.
local HOLDS, FIELDS = 12, 8
local TIME, REPLACED = FIELDS + n + gates + 1, FIELDS + n + gates + 2
if #argv ~= REPLACED or #arg ~= HOLDS + 4 * n + 1 then
  return redis.error_reply('ERR reserve: the arguments do not match the counts')
end

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, last, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
if raw >= given_up then return pack('<dddd', 3, wall, now, raw) end
-- Corrected whatever the result of the request, which may be the last use of the time for long.
if now ~= raw then call('HSET', keys[1], TIME_FIELD, time_value(last, now - wall)) end
if may_repeat == 1 then
  local record, free = record_of(keys[3], keys[5], id), argv[REPLACED]
  if record and now < read('<I7', record, 2) and (free == '' or settled_note(record) ~= free) then
    return pack('<dddd', 2, wall, now, now) .. record
  end
end
if wall < valid_from or wall >= valid_until then return pack('<dddd', 3, wall, now, now) end

local fields, gate = {unpack(argv, FIELDS + 1, FIELDS + n)}, {}
for j = 1, gates do gate[j] = value[n + j] end
local s, stale, entered, fresh = present(value, n, counters_format, arg, HOLDS + 1, 4, fields, keys[2], now, last)
local past = {}
for _, x in ipairs(stale or {}) do past[x[1]] = x[3] end

-- New tables cost more than anything else here, so the data to write reuses the tables of the data read: the amounts used
-- replace the values, and the fields of HSET, two for each hold, the arguments, of which those before the holds and four for
-- each hold so far have been read by then.
local used, out, refused = value, arg, nil
local at = 1
for i = 1, n do
  local h = HOLDS + 4 * i - 3
  local ms, limit, kept, expiring = arg[h], arg[h + 1], arg[h + 2], arg[h + 3]
  local current, total = s[at + 1], s[at + 2]
  -- In `excess` the difference comes first: both sums are exact where it matters.
  local excess
  if ms > 0 then
    used[i] = total
    excess = total - limit + expiring
    out[2 * i - 1] = fields[i]
    out[2 * i] = pack('<ddd', s[at], current + expiring, total + expiring)
    if excess > 0 then refused = refused or {}; refused[#refused + 1] = {i, at, excess, ms} end
    at = at + 3
  else
    local base = s[at + 3]
    used[i] = base + total
    excess = base + total - limit + (kept + expiring)
    out[2 * i - 1] = fields[i]
    out[2 * i] = pack('<dddddd', s[at], current + expiring, total + expiring, base + kept, s[at + 4], s[at + 5] + 1)
    if excess > 0 then refused = refused or {}; refused[#refused + 1] = {i, at, excess, -ms} end
    at = at + 6
  end
end
local closed
for j = 1, gates do
  local ends = gate[j] and read('<d', gate[j]) or 0
  if now < ends then closed = closed or {}; closed[#closed + 1] = {j - 1, ends} end
end

if refused or closed then
  local reply = {1, wall, now, now, unpack(used, 1, n)}
  reply[#reply + 1] = refused and #refused or 0
  for _, x in ipairs(refused or {}) do
    local i, head, excess, ms = x[1], x[2], x[3], x[4]
    local before = past[i] or past_of(call('HGET', keys[2], fields[i]))
    reply[#reply + 1] = i - 1
    reply[#reply + 1] = frees_at(s[head], s[head + 1], before, excess, ms)
  end
  reply[#reply + 1] = closed and #closed or 0
  for _, x in ipairs(closed or {}) do
    reply[#reply + 1] = x[1]
    reply[#reply + 1] = x[2]
  end
  return pack('<' .. ('d'):rep(#reply), unpack(reply))
end

local answer = pack(reply_format, 0, wall, now, now, unpack(used, 1, n))
if dry_run == 1 then return answer end
local expires_at = now + ttl
local gone_at = expires_at + late
if terms ~= '' and not keeps_terms(keys[4], keys[3], {terms}, {terms_body ~= '' and terms_body or nil}, {gone_at}) then
  return pack('<dddd', 4, wall, now, now)
end
-- First, as what is there may be no hash: then nothing is taken.
call('HSET', keys[3], id, pack(RECORD, 0, gone_at, now, expires_at) .. body)
if stale then keep_past(stale, fields, keys[2]) end
if fresh then describe(keys[1]) end
local written = 2 * n
-- Not every time, as that costs as much as a hold; callers know the time to better than a tenth of a second. But no later call
-- may find a slot that is not reached yet: it would count as the slot before, where its amounts are never looked for.
if entered or now - last >= 100 or now - wall ~= ahead then
  out[written + 1], out[written + 2] = TIME_FIELD, time_value(now, now - wall)
  written = written + 2
end
if written > 0 then call('HSET', keys[1], unpack(out, 1, written)) end
return answer
