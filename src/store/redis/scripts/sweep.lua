#!lua flags=allow-oom
-- Removes a bounded number of counters and gates that no longer hold anything, and of records that are gone. This affects only
-- memory, never an answer.
-- Only one caller sweeps at a time; where it stopped is kept for the next. The more is removed, the sooner the next step is due,
-- so the sweep keeps pace with what is created. Also runs when memory is full.
--
-- KEYS 1 counters, 2 history: as in reserve.lua      3 sweep string: when the next is due (8 bytes), then the
--      cursors in counters, records and terms, between blanks
--      4 records, 5 terms, 6 earlier: as in records.lua. The keys of earlier records are not known in advance, but all have this
--      hash tag and so are in the same slot as the other keys.
--      7 unreported  hash: how many reservations are gone that were not reported, by the hash of their terms, or by a body that has its
--                    own. A program books them in rows of usage (book_unreported.lua)
-- ARGV 1 numbers, packed as '<ddddddd': wall (negative: ask TIME), low, high (see store_time.lua), the store's time from which on the
--        caller has given up; the most and the least
--        milliseconds between two steps; about how many counters, records and terms each to look at
-- Reply, packed doubles: the wall clock, the store's time, and the store's time for the next call at this instant; how many
--      counters and gates were removed; 1 if a round through all counters is complete; the milliseconds until the next step,
--      0 if this was none; how many fields unreported has
--
-- A worked call: EVALSHA <sha> 7 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:sweep tollgate:{acme}:records
--   tollgate:{acme}:terms tollgate:{acme}:reservations tollgate:{acme}:unreported
--   pack(9000000, 0, 2^53-1, 2^53-1, 2000, 5, 256) -> pack(9000000, 9000000, 9000000, 1, 1, 5, 0): the counter of reserve.lua is gone,
--   its 61 slots have ended
if #KEYS ~= 7 or #ARGV ~= 1 then return redis.error_reply('ERR sweep: 7 keys and 1 argument') end
local wall, low, high, given_up, most, least, count = struct.unpack('<ddddddd', ARGV[1])
local now, raw, last, ahead
now, wall, raw, last, ahead = store_time(wall, low, high, redis.call('HGET', KEYS[1], TIME_FIELD))
if raw >= given_up then return struct.pack('<ddddddd', wall, now, raw, 0, 0, 0, 0) end
-- Corrected after a step of the wall clock, and written often in any case: a recent time shows a new process that others are
-- running, which would have seen a step.
if now - wall ~= ahead or now - last >= 1000 then
  redis.call('HSET', KEYS[1], TIME_FIELD, time_value(now, now - wall))
end

local cursors, state = {}, redis.call('GET', KEYS[3])
if state then
  local due = struct.unpack('<d', state)
  -- Not early; but also not never, if an earlier version wrote it under a clock that was set.
  if now < due and due - now <= most then return struct.pack('<ddddddd', wall, now, now, 0, 0, 0, 0) end
  for cursor in state:sub(9):gmatch('%d+') do cursors[#cursors + 1] = cursor end
end

-- Days since 1970-01-01, Gregorian.
local function day_number(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

-- Nothing asks for a period after PERIOD_KEPT_DAYS, or for one that began on the first, which may be a month, after
-- MONTH_KEPT_DAYS. Only budgets have periods: the name of any other counter may end as if it had one, as a user chooses that end.
local function is_over(field, v)
  local year, month, day = field:match('@(%d%d%d%d)(%d%d)(%d%d)$')
  if #v ~= BUDGET_BYTES or not year then return false end
  -- By the earlier of the two: a single look at a wall clock that is ahead must not end a period.
  return math.min(now, wall) >= (day_number(year + 0, month + 0, day + 0) + (day == '01' and MONTH_KEPT_DAYS or PERIOD_KEPT_DAYS)) * DAY_MS
end

local function is_idle(field, v, history)
  if field:sub(1, #GATE_PREFIX) == GATE_PREFIX then return #v < 8 or now >= struct.unpack('<d', v) end
  -- What is too short to be a counter is foreign, and left alone.
  if field == '!layout' or field == TIME_FIELD or #v < WINDOW_BYTES then return false end
  if is_over(field, v) then return true end
  if #v == BUDGET_BYTES then
    local base, settled, open = struct.unpack('<ddd', v, WINDOW_BYTES + 1)
    if base ~= 0 or settled ~= 0 or open ~= 0 then return false end
  end
  local head, _, total = struct.unpack('<ddd', v)
  if total == 0 then return true end
  if not history or #history < 8 then return false end
  return has_ended(head, total, slot_at(now, (struct.unpack('<d', history))))
end

local found = redis.call('HSCAN', KEYS[1], cursors[1] or '0', 'COUNT', count)
local page, looked, removed = found[2], 0, 0
-- In pieces, as a page may be longer than requested.
for from = 1, #page, 1000 do
  local fields, gone = {}, {}
  for i = from, math.min(from + 999, #page), 2 do fields[#fields + 1] = page[i] end
  local history = redis.call('HMGET', KEYS[2], unpack(fields))
  for k, field in ipairs(fields) do
    if is_idle(field, page[from + 2 * k - 1], history[k]) then gone[#gone + 1] = field end
  end
  if #gone > 0 then
    redis.call('HDEL', KEYS[1], unpack(gone))
    redis.call('HDEL', KEYS[2], unpack(gone))
  end
  looked, removed = looked + #fields, removed + #gone
end

-- Removes the fields of a hash whose values `ends` says to be over. Returns the next cursor, and how many were looked at and removed.
local function swept(key, cursor, ends)
  local found = redis.call('HSCAN', key, cursor or '0', 'COUNT', count)
  local page, gone = found[2], {}
  for i = 1, #page, 2 do
    if ends(page[i], page[i + 1]) then gone[#gone + 1] = page[i] end
  end
  for from = 1, #gone, 1000 do redis.call('HDEL', key, unpack(gone, from, math.min(from + 999, #gone))) end
  return found[1], #page / 2, #gone
end

-- The same, but a key with foreign data ends neither the step nor the round through the others.
local function swept_if_possible(...)
  local done, cursor, looked, removed = pcall(swept, ...)
  if done then return cursor, looked, removed end
  return '0', 0, 0
end

-- Records of earlier layouts are moved to the others first. An id under which there is no record is forgotten.
local has_earlier, digits = pcall(redis.call, 'ZRANGE', KEYS[6], 0, math.min(count, 1000) - 1)
if not has_earlier or digits.err then digits = {} end
for _, id in ipairs(digits) do
  local bytes = id:gsub('%x%x', function(byte) return string.char(tonumber(byte, 16)) end)
  local done, record = pcall(moved_record, KEYS[4], KEYS[6], bytes)
  if not done or not record then redis.call('ZREM', KEYS[6], id) end
end
-- What is under the key may be foreign: then nothing is counted.
local kinds = redis.pcall('HLEN', KEYS[7])
if type(kinds) ~= 'number' then kinds = false end
-- Counts a record that is open and gone, and removes it here: counted and removed, or neither. The first body version has no terms that
-- say of which team it is.
local function count_unreported(id, record)
  local body = record:sub(RECORD_BYTES + 1)
  local version = body:byte()
  if version ~= 2 and version ~= 3 then return end
  local kind = version == 2 and body:sub(2, 13) or body
  if kinds >= UNREPORTED_KINDS and redis.call('HEXISTS', KEYS[7], kind) == 0 then return end
  if redis.call('HDEL', KEYS[4], id) == 1 and redis.call('HINCRBY', KEYS[7], kind, 1) == 1 then kinds = kinds + 1 end
end
local records_at, records_looked, records_removed = swept_if_possible(KEYS[4], cursors[2], function(id, record)
  if #id ~= 16 then return false end
  if #record < RECORD_BYTES then return true end
  local state, gone_at = struct.unpack('<BI7', record)
  if now < gone_at then return false end
  if state == 0 and kinds then count_unreported(id, record) end
  return true
end)
-- Those of reservations that are counted and not booked yet say of which team they were.
local terms_at = swept_if_possible(KEYS[5], cursors[3], function(hash, terms)
  local is_over = #terms < 8 or now >= struct.unpack('<d', terms)
  return is_over and (not kinds or redis.call('HEXISTS', KEYS[7], hash) == 0)
end)
-- In case no process is left to sweep. By the server's clock, which may be set: so far longer than anything is kept.
redis.call('PEXPIRE', KEYS[4], RECORD_KEPT_MS)
redis.call('PEXPIRE', KEYS[5], RECORD_KEPT_MS)
if kinds then redis.call('PEXPIRE', KEYS[7], RECORD_KEPT_MS) end

-- If a quarter was removed: as fast as permitted, until at most about that share of the entries is idle.
local function pause_after(looked, removed)
  return looked > 0 and math.max(least, math.ceil(most * (1 - 4 * removed / looked))) or most
end
local pause = math.min(pause_after(looked, removed), pause_after(records_looked, records_removed))
if #digits > 0 then pause = least end
redis.call('SET', KEYS[3], struct.pack('<d', now + pause) .. found[1] .. ' ' .. records_at .. ' ' .. terms_at)
return struct.pack('<ddddddd', wall, now, now, removed, found[1] == '0' and 1 or 0, math.max(pause, 1), kinds or 0)
