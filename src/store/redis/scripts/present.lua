-- Counters as they stand in the present slot, put before each script that takes from them.
--
-- present(value, n, format, arg, first, step, fields, history, now, last): the `n` values of counters as HMGET found them (false: none), and
-- the `struct` format of them all; the slot of the first in `arg`, in ms (negative: a budget), and how many numbers come from one to the next;
-- the names of the counters' fields, in a table from 1 on, and the key of their history; the store's time, and the last one that was written.
-- Returns all their numbers one after the other, 3 of a window and 6 of a budget; the counters that have moved, each with its number, its
-- slot's length and the past there (nil: none has); whether one has entered a slot that was not reached by `last`; and whether one is new.
local function present(value, n, format, arg, first, step, fields, history, now, last)
  local fresh = false
  for i = 1, n do
    local v, width = value[i], arg[first + step * (i - 1)] > 0 and WINDOW_BYTES or BUDGET_BYTES
    if not v then
      value[i], fresh = ('\0'):rep(width), true
    elseif #v ~= width then
      value[i] = (v .. ('\0'):rep(width)):sub(1, width)
    end
  end
  local s = {struct.unpack(format, table.concat(value, '', 1, n))}

  local stale, entered, at = nil, false, 1
  for i = 1, n do
    local ms, width = arg[first + step * (i - 1)], 3
    if ms < 0 then ms, width = -ms, 6 end
    if now >= (s[at] + 1) * ms or now < s[at] * ms then
      local slot = slot_at(now, ms)
      stale = stale or {}
      stale[#stale + 1] = {i, ms, '', at, slot}
      entered = entered or last < slot * ms
    end
    at = at + width
  end
  if stale then
    local names = {}
    for k, x in ipairs(stale) do names[k] = fields[x[1]] end
    local pasts = redis.call('HMGET', history, unpack(names))
    for k, x in ipairs(stale) do
      local head, slot = x[4], x[5]
      s[head + 1], s[head + 2], x[3] = moved(s[head], s[head + 1], s[head + 2], past_of(pasts[k]), slot)
      s[head] = slot
    end
  end
  return s, stale, entered, fresh
end

-- Writes the history of counters that have moved.
local function keep_past(stale, fields, history)
  local entries = {}
  for k, x in ipairs(stale) do
    entries[2 * k - 1], entries[2 * k] = fields[x[1]], struct.pack('<d', x[2]) .. x[3]
  end
  redis.call('HSET', history, unpack(entries))
end

-- One value of more than 64 bytes makes Redis keep the hash of counters as a table instead of a list that it has to search.
local function describe(counters)
  redis.call('HSET', counters, '!layout',
    'head, current, total (budgets: base, settled, open) as little-endian doubles; see reserve.lua')
end
