-- Put before each script that uses the time.
--
-- The store's own time never goes back and runs at the pace of true time; the wall clock may be set. Field `!time` of the
-- counters hash keeps the two apart: three little-endian doubles, the store's time of the last change or sweep (to a tenth of a
-- second), the store's time minus the wall clock, and the layout of the data. It is the one field that every script on counters
-- reads, so a script refuses to work on a layout above LAYOUT at no cost, before it changes anything.
--
-- store_time(wall, low, high, kept): `wall` as in the arguments (negative: ask TIME), the caller's lower and upper bounds on
-- the store's time, and the value of `!time`. Returns the store's time, the wall clock, what the store's time would
-- be without those bounds, and the first two numbers of `!time`. time_value(now, ahead) is the value that `!time` gets.
-- known_time(kept) returns those two numbers, or raises the error `LAYOUT <found>`.
local function known_time(kept)
  if not kept then return 0, 0 end
  local last, ahead, layout = struct.unpack('<ddd', kept)
  if layout > LAYOUT then error({err = ('LAYOUT %.0f'):format(layout)}) end
  return last, ahead
end

local function store_time(wall, low, high, kept)
  if wall < 0 then
    local time = redis.call('TIME')
    local us = time[2] + 0
    wall = time[1] * 1000 + (us - us % 1000) / 1000
  end
  local last, ahead = known_time(kept)
  local raw = wall + ahead
  local now = raw
  if now > high then now = high end
  if now < low then now = low end
  if now < last then now = last end
  return now, wall, raw, last, ahead
end

local function time_value(now, ahead) return struct.pack('<ddd', now, ahead, LAYOUT) end
