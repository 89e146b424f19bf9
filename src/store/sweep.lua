#!lua
-- Removes a bounded number of counters and gates that hold nothing any more. Only memory depends on it, no answer does.
-- Of all the callers only one in `every` milliseconds sweeps; where it stopped is kept for the next, whoever that is.
--
-- KEYS 1 counters, 2 history: as in reserve.lua      3 sweep string: when the next is due (8 bytes), then the cursor
-- ARGV 1 numbers, packed as '<ddd': now (negative: ask TIME), every, about how many fields to look at
-- Reply, packed doubles: now, how many were removed, 1 if a round through all counters is complete
--
-- A worked call: EVALSHA <sha> 3 tollgate:{acme}:counters tollgate:{acme}:history tollgate:{acme}:sweep
--   pack(9000000, 2000, 256) -> pack(9000000, 1, 1): the counter of reserve.lua is gone, its 61 slots have ended
if #KEYS ~= 3 or #ARGV ~= 1 then return redis.error_reply('ERR sweep: 3 keys and 1 argument') end
local DAY_MS = 86400000
local now, every, count = struct.unpack('<ddd', ARGV[1])
if now < 0 then
  local time = redis.call('TIME')
  local us = time[2] + 0
  now = time[1] * 1000 + (us - us % 1000) / 1000
end

local cursor, state = '0', redis.call('GET', KEYS[3])
if state then
  local due = struct.unpack('<d', state)
  -- Neither early nor, after a clock that stepped back, never.
  if now < due and due - now <= every then return struct.pack('<ddd', now, 0, 0) end
  cursor = state:sub(9)
end

-- Days since 1970-01-01, Gregorian.
local function day_number(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

-- Nothing asks for a period after 40 days, nor for one that began on the first, which may be a month, after 13 months.
-- Only budgets have periods: the name of any other counter may end as if it had one, as a user chooses that end.
local function is_over(field, v)
  local year, month, day = field:match('@(%d%d%d%d)(%d%d)(%d%d)$')
  if #v ~= 48 or not year then return false end
  return now >= (day_number(year + 0, month + 0, day + 0) + (day == '01' and 400 or 40)) * DAY_MS
end

local function is_idle(field, v, history)
  if field:sub(1, 6) == '!gate/' then return now >= struct.unpack('<d', v) end
  if field == '!layout' then return false end
  if is_over(field, v) then return true end
  if #v == 48 then
    local base, settled, open = struct.unpack('<ddd', v, 25)
    if base ~= 0 or settled ~= 0 or open ~= 0 then return false end
  end
  local head, _, total = struct.unpack('<ddd', v)
  if total == 0 then return true end
  if not history then return false end
  return math.floor(now / struct.unpack('<d', history)) > head + 60
end

local found = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', count)
local page, removed = found[2], 0
for i = 1, #page, 2 do
  local field = page[i]
  if is_idle(field, page[i + 1], redis.call('HGET', KEYS[2], field)) then
    redis.call('HDEL', KEYS[1], field)
    redis.call('HDEL', KEYS[2], field)
    removed = removed + 1
  end
end
redis.call('SET', KEYS[3], struct.pack('<d', now + every) .. found[1])
return struct.pack('<ddd', now, removed, found[1] == '0' and 1 or 0)
