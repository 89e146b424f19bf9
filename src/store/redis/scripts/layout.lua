-- Put before each script that does not read `!time`.
--
-- look_at_layout(meta): raises the error `LAYOUT <found>` if the layout in the hash `meta` (meta.lua) is above LAYOUT. Called before anything
-- is read or changed.
local function look_at_layout(meta)
  local layout = tonumber(redis.call('HGET', meta, 'layout')) or 0
  if layout > LAYOUT then error({err = ('LAYOUT %.0f'):format(layout)}) end
end
