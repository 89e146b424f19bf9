#!lua
-- Makes several reservations in one step. Adds up what they take from each counter, and takes all of it if all of it fits: then
-- each would have been granted one after the other as well. Otherwise (a limit or a closed gate refuses one, an id exists, the
-- time is out of the range of one, or the clock was set) nothing is taken, and reserve.lua is called for each. Keys and values
-- are those of reserve.lua.
--
-- KEYS as in reserve.lua
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua); the
--                   earliest time from which a caller has given up; 1 if an id may repeat; the range that is valid for all, from and until; counters, gates,
--                   terms, reservations;
--                   then for each counter slot_ms (negative: a budget), the lowest limit, and the sums of kept, expiring and
--                   reservations that hold it; then for each of the terms the longest time that a record refers to it; then for each
--                   reservation ttl and late
--      2 the struct format of ARGV 1       3 that of the counters' values, concatenated
--      4 that of the reply when all are granted
--      5… the field of each counter, then of each gate, then "!time", then the terms that the records refer to, then what they are, if
--      Redis may not have them (all, or empty for each), then for each reservation its id and its record's body
-- Reply, packed doubles:
--      0, wall, now, next, used…      all are granted; what each counter had used before the first of them
--      1                              nothing was taken: each is to be decided by itself
--      2                              nothing was taken: what the terms are is wanted
--
-- A worked call: the reservation of reserve.lua twice, so that 8 of 10 are taken.
--   EVALSHA <sha> 5 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:records tollgate:{acme}:terms
--     tollgate:{acme}:reservations
--     pack(5500, 0, 2^53-1, 2^53-1, 0, 0, 2^53-1, 1, 0, 0, 2,  1000, 10, 0, 8, 2,  60000, 60000, 60000, 60000) <dddddddddddddddddddd <ddd
--     <ddddd team/chatbot|requests|minute !time <id> <body> <id> <body>
--   -> pack(0, 5500, 5500, 5500, 0); the counter is now pack(5, 8, 8)
local argv, keys = ARGV, KEYS
if #keys ~= 5 or #argv < 7 then return redis.error_reply('ERR reserve_batch: 5 keys and at least 7 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local numbers, format, counters_format, reply_format = unpack(argv, 1, 4)
local arg = {read(format, numbers)}
local asked_wall, low, high, given_up, may_repeat, valid_from, valid_until, n, gates, terms, members = unpack(arg, 1, 11)
-- Before the first of the counters' numbers, of which each has five, of the terms', and of the reservations', two each; in ARGV,
-- before the first of the fields, of the terms, of what they are and of the ids, and "!time".
local COUNTERS, TERM_LIVES, LIVES = 11, 11 + 5 * n, 11 + 5 * n + terms
local FIELDS, TIME = 4, 5 + n + gates
local TERMS, BODIES, RECORDS = TIME, TIME + terms, TIME + 2 * terms
if #argv ~= RECORDS + 2 * members or #arg ~= LIVES + 2 * members + 1 then
  return redis.error_reply('ERR reserve_batch: the arguments do not match the counts')
end
local ONE_BY_ONE, TERMS_WANTED = pack('<d', 1), pack('<d', 2)

local value = call('HMGET', keys[1], unpack(argv, FIELDS + 1, TIME))
local now, wall, raw, last, ahead = store_time(asked_wall, low, high, value[TIME - FIELDS])
if now ~= raw or raw >= given_up or wall < valid_from or wall >= valid_until then return ONE_BY_ONE end
if may_repeat == 1 then
  local ids = {}
  for m = 1, members do ids[m] = argv[RECORDS + 2 * m - 1] end
  local known = call('HMGET', keys[3], unpack(ids))
  for m = 1, members do
    if known[m] then return ONE_BY_ONE end
  end
  if call('EXISTS', keys[5]) == 1 then return ONE_BY_ONE end
end
for j = 1, gates do
  local gate = value[n + j]
  if gate and (#gate < 8 or now < read('<d', gate)) then return ONE_BY_ONE end
end

-- From here on as reserve.lua, with sums for amounts.
local fields = {unpack(argv, FIELDS + 1, FIELDS + n)}
local s, stale, entered, fresh = present(value, n, counters_format, arg, COUNTERS + 1, 5, fields, keys[2], now, last)
local used, out = value, {}
local at = 1
for i = 1, n do
  local h = COUNTERS + 5 * i - 4
  local ms, limit, kept, expiring, holders = arg[h], arg[h + 1], arg[h + 2], arg[h + 3], arg[h + 4]
  local current, total = s[at + 1], s[at + 2]
  out[2 * i - 1] = fields[i]
  if ms > 0 then
    if total - limit + expiring > 0 then return ONE_BY_ONE end
    used[i] = total
    out[2 * i] = pack('<ddd', s[at], current + expiring, total + expiring)
    at = at + 3
  else
    local base = s[at + 3]
    if base + total - limit + (kept + expiring) > 0 then return ONE_BY_ONE end
    used[i] = base + total
    out[2 * i] = pack('<dddddd', s[at], current + expiring, total + expiring, base + kept, s[at + 4], s[at + 5] + holders)
    at = at + 6
  end
end

local hashes, bodies, gone_at = {}, {}, {}
for t = 1, terms do
  local body = argv[BODIES + t]
  hashes[t], bodies[t], gone_at[t] = argv[TERMS + t], body ~= '' and body or nil, now + arg[TERM_LIVES + t]
end
if not keeps_terms(keys[4], keys[3], hashes, bodies, gone_at) then return TERMS_WANTED end
-- First, as in reserve.lua.
local records, header, ttl, late = {}, nil, nil, nil
for m = 1, members do
  local l, r = LIVES + 2 * m, RECORDS + 2 * m
  -- Most have the same.
  if arg[l - 1] ~= ttl or arg[l] ~= late then
    ttl, late = arg[l - 1], arg[l]
    header = pack(RECORD, 0, now + ttl + late, now, now + ttl)
  end
  records[2 * m - 1], records[2 * m] = argv[r - 1], header .. argv[r]
end
call('HSET', keys[3], unpack(records))
if stale then keep_past(stale, fields, keys[2]) end
if fresh then describe(keys[1]) end
if entered or now - last >= 100 or now - wall ~= ahead then
  out[2 * n + 1], out[2 * n + 2] = TIME_FIELD, time_value(now, now - wall)
end
if #out > 0 then call('HSET', keys[1], unpack(out)) end
return pack(reply_format, 0, wall, now, now, unpack(used, 1, n))
