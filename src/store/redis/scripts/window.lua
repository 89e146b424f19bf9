-- The sliding window, put before each script that reads or moves one. Mirrors domain/window.rs exactly.
--
-- A window is WINDOW_SLOTS slots long; an amount counts in its own slot and in that many after it. `head` is the newest slot that
-- received an amount, `current` the amount in it, `total` everything that counts in `head`, and `past` the amounts of the slots
-- before it: little-endian doubles, newest first, at most WINDOW_SLOTS; amounts missing at the end are zero.

-- The slot of an instant.
local function slot_at(time, slot_ms)
  local slot = time / slot_ms
  return slot - slot % 1
end

-- `past` in a field of the history, which begins with slot_ms; false: there is none.
local function past_of(field) return (field or ''):sub(9) end

-- Whether nothing counts in `slot` any more.
local function has_ended(head, total, slot) return total == 0 or slot > head + WINDOW_SLOTS end

-- Moves a window to `slot`. Returns `current`, `total` and `past` there.
local function moved(head, current, total, past, slot)
  local gap = slot - head
  if gap == 0 then return current, total, past end
  if has_ended(head, total, slot) then return 0, 0, '' end
  -- It is ahead of the time: an earlier version wrote it under a clock that was set. Everything that counts moves to this slot.
  if gap < 0 then return total, total, '' end
  -- Of the slots before head, the newest WINDOW_SLOTS - gap still count.
  local kept = 8 * (WINDOW_SLOTS - gap)
  if #past > kept then
    -- After the values, unpack returns the position where it stopped.
    local expired = {struct.unpack('<' .. ('d'):rep((#past - kept) / 8), past, kept + 1)}
    for i = 1, #expired - 1 do total = total - expired[i] end
    if total == 0 then return 0, 0, '' end
    past = past:sub(1, kept)
  end
  return 0, total, ('\0'):rep(8 * (gap - 1)) .. struct.pack('<d', current) .. past
end

-- Moves counters, tables with `head`, `current` and `total`, each to its `slot`, where it gets its `past`; `fields` are their names in the
-- hash of the history, in the same order.
local function move_all(counters, fields, history)
  if #fields == 0 then return end
  local pasts = redis.call('HMGET', history, unpack(fields))
  for k, x in ipairs(counters) do
    x.current, x.total, x.past = moved(x.head, x.current, x.total, past_of(pasts[k]), x.slot)
    x.head = x.slot
  end
end

-- The first instant when `excess` of what counts no longer counts if nothing is added; 0 if less than `excess` counts.
local function frees_at(head, current, past, excess, slot_ms)
  local amounts = {struct.unpack('<' .. ('d'):rep(#past / 8), past)}
  local freed = 0
  for age = #amounts - 1, 1, -1 do
    freed = freed + amounts[age]
    if freed >= excess then return (head - age + WINDOW_SLOTS + 1) * slot_ms end
  end
  return freed + current >= excess and (head + WINDOW_SLOTS + 1) * slot_ms or 0
end

-- Takes `amount` back from slot `was`, but no more than is there: the rest expires by itself, which is the safe side. Without
-- `past` (nil) nothing is taken from a slot before `head`. Returns `current`, `total` and `past`.
local function taken_back(head, current, total, past, was, amount)
  if was >= head then
    local taken = math.min(amount, current)
    return current - taken, total - taken, past
  end
  local from = 8 * (head - 1 - was)
  if past and from + 8 <= #past then
    local there = struct.unpack('<d', past, from + 1)
    local taken = math.min(amount, there)
    total = total - taken
    past = past:sub(1, from) .. struct.pack('<d', there - taken) .. past:sub(from + 9)
  end
  return current, total, past
end
