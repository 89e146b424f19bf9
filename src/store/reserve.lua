#!lua
-- Takes all holds of a reservation or none, with one HMGET, one HSET, one SET and one ZADD whatever the number of holds.
-- Mirrors domain/counter.rs (check, take) and domain/window.rs exactly; all numbers are integers below 2^53.
--
-- KEYS 1 counters   hash: counter -> window (24 bytes: head slot, current, total) or
--                   budget (48 bytes: the same, then base, settled, open); "!gate/<name>" -> until, and what settle.lua needs.
--                   Every number is a little-endian double. "!time": see store_time.lua; slots, "until" and the instants of
--                   records are in the store's time.
--      2 history    hash: counter -> slot_ms, then the amounts of the slots before head, newest first, at most 60;
--                   amounts missing at the end are zero. Touched only when time enters a new slot.
--      3 record     string: 0 (open), reserved_at, expires_at, gone_at, then the bytes of ARGV 6
--      4 index      sorted set: the id, which is the last 32 bytes of the record's key -> gone_at. The sweep removes records by it,
--                   so they follow the store's time; the server's own expiry would follow a clock that may be set.
-- ARGV 1 numbers    wall (negative: ask TIME), low, high (see store_time.lua), the store's time from which on the caller has
--                   given up, may_repeat, dry_run, valid from, valid until (by the wall clock), ttl, late, holds, gates;
--                   then for each hold slot_ms (negative: a budget), limit, kept, expiring
--      2 the struct format of ARGV 1       3 that of the holds' counters, concatenated
--      4 that of the reply when granted    5 the record's time to live in ms, in case no process is left to sweep
--      6 opaque bytes of the record
--      7… the field of each hold's counter, then of each gate, then "!time", then the note of settlements that leave their
--      id free (empty: none): a record that was settled with it is replaced
-- Reply, packed doubles: a number, then the wall clock, the store's time, and the store's time for the next call at this instant:
--      0, wall, now, next, used…                                                     granted
--      1, wall, now, next, used…, m, m × (hold, frees_at or 0), g, g × (gate, until) refused
--      2, wall, now, next, the record's bytes                                        the reservation exists
--      3, wall, now, next                                               too late, or outside the valid range
--
-- A worked call: one window of 1000 ms slots, limit 10, take 4 at 5500 ms; nothing was used.
--   EVALSHA <sha> 4 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:reservation:00ff… tollgate:{acme}:reservations
--     pack(5500, 0, 2^53-1, 2^53-1, 0, 0, 0, 2^53-1, 60000, 60000, 1, 0,  1000, 10, 0, 4) <dddddddddddddddd <ddd <ddddd
--     34560000000 <blob> team/chatbot|requests|minute !time ""
--   -> pack(0, 5500, 5500, 5500, 0); the counter is now pack(5, 4, 4), "!time" pack(5500, 0, 1)
local argv, keys = ARGV, KEYS
if #keys ~= 4 or #argv < 6 then return redis.error_reply('ERR reserve: 4 keys and at least 6 arguments') end
local call, pack, read = redis.call, struct.pack, struct.unpack
local arg = {read(argv[2], argv[1])}
local n, gates = arg[11], arg[12]
if #argv ~= 8 + n + gates or #arg ~= 13 + 4 * n then
  return redis.error_reply('ERR reserve: the arguments do not match the counts')
end

local value = call('HMGET', keys[1], unpack(argv, 7, 7 + n + gates))
local now, wall, raw, last, ahead = store_time(arg[1], arg[2], arg[3], value[1 + n + gates])
if raw >= arg[4] then return pack('<dddd', 3, wall, now, raw) end
-- Corrected whatever the result of the request, which may be the last use of the time for long.
if now ~= raw then call('HSET', keys[1], '!time', pack('<ddd', last, now - wall, 1)) end
if arg[5] == 1 then
  local record = call('GET', keys[3])
  if record and now < read('<d', record, 25) then
    local free = argv[8 + n + gates]
    local note = free ~= '' and read('<d', record) == 2 and record:sub(65, 64 + read('<d', record, 49))
    if note ~= free then return pack('<dddd', 2, wall, now, now) .. record end
  end
end
if wall < arg[7] or wall >= arg[8] then return pack('<dddd', 3, wall, now, now) end

local fresh = false
for i = 1, n do
  local v, width = value[i], arg[9 + 4 * i] > 0 and 24 or 48
  if not v then
    value[i], fresh = ('\0'):rep(width), true
  elseif #v ~= width then
    value[i] = (v .. ('\0'):rep(24)):sub(1, width)
  end
end
-- The counters' numbers, one after the other; a counter begins at `at`.
local s = {read(argv[3], table.concat(value, '', 1, n))}

-- Counters that are behind the time: their history moves on. Those ahead of it, which an earlier version wrote under a
-- clock that was set: everything that counts moves to the present slot.
local stale, entered, at = nil, false, 1
for i = 1, n do
  local ms, width = arg[9 + 4 * i], 3
  if ms < 0 then ms, width = -ms, 6 end
  if now >= (s[at] + 1) * ms or now < s[at] * ms then
    local slot = now / ms
    slot = slot - slot % 1
    stale = stale or {}
    stale[#stale + 1] = {i, at, slot, ms}
    entered = entered or last < slot * ms
  end
  at = at + width
end
local past = {}
if stale then
  local fields = {}
  for k, x in ipairs(stale) do fields[k] = argv[6 + x[1]] end
  local history = call('HMGET', keys[2], unpack(fields))
  for k, x in ipairs(stale) do
    local head, slot = x[2], x[3]
    local gap, current, total, older = slot - s[head], 0, s[head + 2], ''
    if gap > 60 then total = 0 end
    if gap < 0 then
      current = total
    elseif total > 0 then
      older = ('\0'):rep(8 * (gap - 1)) .. pack('<d', s[head + 1]) .. (history[k] or ''):sub(9)
      if #older > 480 then
        local dropped = {read('<' .. ('d'):rep(#older / 8 - 60), older, 481)}
        for j = 1, #dropped - 1 do total = total - dropped[j] end
        older = older:sub(1, 480)
      end
      if total == 0 then older = '' end
    end
    s[head], s[head + 1], s[head + 2], past[x[1]] = slot, current, total, older
  end
end

local gate = {}
for j = 1, gates do gate[j] = value[n + j] end
local dry_run, ttl, late = arg[6] == 1, arg[9], arg[10]
-- New tables cost more than anything else here, so the data to write reuses the tables of the data read: the amounts used
-- replace the values, and the fields of HSET, two for each hold, the arguments, four of which have been read by then.
local used, out, refused = value, arg, nil
at = 1
for i = 1, n do
  local h = 4 * i + 9
  local ms, limit, expiring = arg[h], arg[h + 1], arg[h + 3]
  local current, total = s[at + 1], s[at + 2]
  -- In `excess` the difference comes first: both sums are exact where it matters.
  local excess
  if ms > 0 then
    used[i] = total
    excess = total - limit + expiring
    out[2 * i - 1] = argv[6 + i]
    out[2 * i] = pack('<ddd', s[at], current + expiring, total + expiring)
    if excess > 0 then refused = refused or {}; refused[#refused + 1] = {i, at, excess, ms} end
    at = at + 3
  else
    local base, kept = s[at + 3], arg[h + 2]
    used[i] = base + total
    excess = base + total - limit + (kept + expiring)
    out[2 * i - 1] = argv[6 + i]
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
    local older = past[i] or (call('HGET', keys[2], argv[6 + i]) or ''):sub(9)
    local amounts = {read('<' .. ('d'):rep(#older / 8), older)}
    local freed, frees_at = 0, 0
    for age = #amounts - 1, 1, -1 do
      freed = freed + amounts[age]
      if freed >= excess then
        frees_at = (s[head] - age + 61) * ms
        break
      end
    end
    if frees_at == 0 and freed + s[head + 1] >= excess then frees_at = (s[head] + 61) * ms end
    reply[#reply + 1] = i - 1
    reply[#reply + 1] = frees_at
  end
  reply[#reply + 1] = closed and #closed or 0
  for _, x in ipairs(closed or {}) do
    reply[#reply + 1] = x[1]
    reply[#reply + 1] = x[2]
  end
  return pack('<' .. ('d'):rep(#reply), unpack(reply))
end

local answer = pack(argv[4], 0, wall, now, now, unpack(used, 1, n))
if dry_run then return answer end
if stale then
  local history = {}
  for k, x in ipairs(stale) do
    history[2 * k - 1], history[2 * k] = argv[6 + x[1]], pack('<d', x[4]) .. past[x[1]]
  end
  call('HSET', keys[2], unpack(history))
end
if fresh then
  -- One value of more than 64 bytes makes Redis keep this hash as a table instead of a list that it has to search.
  call('HSET', keys[1], '!layout',
    '1: head, current, total (budgets: base, settled, open) as little-endian doubles; see reserve.lua')
end
local fields = 2 * n
-- Not every time, as that costs as much as a hold; callers know the time to better than a tenth of a second. But no later call
-- may find a slot that is not reached yet: it would count as the slot before, where its amounts are never looked for.
if entered or now - last >= 100 or now - wall ~= ahead then
  out[fields + 1], out[fields + 2] = '!time', pack('<ddd', now, now - wall, 1)
  fields = fields + 2
end
if fields > 0 then call('HSET', keys[1], unpack(out, 1, fields)) end
local expires_at = now + ttl
local gone_at = expires_at + late
call('SET', keys[3], pack('<dddd', 0, now, expires_at, gone_at) .. argv[6], 'PX', argv[5])
call('ZADD', keys[4], gone_at, keys[3]:sub(-32))
return answer
