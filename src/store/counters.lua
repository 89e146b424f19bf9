#!lua flags=no-writes
-- Returns the states of counters, as domain/counter.rs (state) computes them. Changes nothing.
--
-- KEYS 1 counters, 2 history: as in reserve.lua
-- ARGV 1 numbers: wall (negative: ask TIME), low, high (see store_time.lua), then for each counter slot_ms (negative: a budget)
--      2 the struct format of ARGV 1       3… the field of each counter, then "!time"
-- Reply, packed doubles: the wall clock, the store's time, the store's time for the next call at this instant, when it was
--      last written (0: never); then for each counter used, settled, open
--
-- A worked call: after the one in settle.lua, at 6100 ms.
--   EVALSHA <sha> 2 tollgate:{acme}:counters tollgate:{acme}:history pack(6100, 0, 2^53-1, 1000) <dddd
--     team/chatbot|requests|minute !time
--   -> pack(6100, 6100, 6100, 5900, 1, 0, 0)
local argv, keys = ARGV, KEYS
if #keys ~= 2 or #argv < 3 then return redis.error_reply('ERR counters: 2 keys and at least 3 arguments') end
local read = struct.unpack
local arg = {read(argv[2], argv[1])}
local n = #argv - 3
if #arg ~= n + 4 then return redis.error_reply('ERR counters: the arguments do not match the counts') end

local value = redis.call('HMGET', keys[1], unpack(argv, 3))
local now, wall, raw, last = store_time(arg[1], arg[2], arg[3], value[1 + n])
local reply = {wall, now, now > raw and now or raw, last}
for i = 1, n do
  local v, ms = value[i], arg[3 + i]
  if ms < 0 then ms = -ms end
  local used, settled, open = 0, 0, 0
  if v then
    local head, _, total = read('<ddd', v)
    local base = 0
    if #v == 48 then base, settled, open = read('<ddd', v, 25) end
    local slot = now / ms
    local gap = slot - slot % 1 - head
    if gap > 60 then
      total = 0
    elseif gap > 0 and total > 0 then
      -- Of the slots before head, the newest 60 - gap still count.
      local from = 9 + 8 * (60 - gap)
      local older = redis.call('HGET', keys[2], argv[2 + i]) or ''
      if #older >= from then
        local dropped = {read('<' .. ('d'):rep((#older - from + 1) / 8), older, from)}
        for j = 1, #dropped - 1 do total = total - dropped[j] end
      end
    end
    used = base + total
  end
  reply[3 * i + 2], reply[3 * i + 3], reply[3 * i + 4] = used, settled, open
end
return struct.pack('<' .. ('d'):rep(#reply), unpack(reply))
