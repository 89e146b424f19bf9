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
-- Before the first of the counters' fields in ARGV, and of their numbers.
local FIELDS, NUMBERS = 2, 3
local n = #argv - FIELDS - 1
if #arg ~= NUMBERS + n + 1 then return redis.error_reply('ERR counters: the arguments do not match the counts') end

local value = redis.call('HMGET', keys[1], unpack(argv, FIELDS + 1))
local now, wall, raw, last = store_time(arg[1], arg[2], arg[3], value[1 + n])
local reply = {wall, now, math.max(now, raw), last}
for i = 1, n do
  local v, ms = value[i], arg[NUMBERS + i]
  if ms < 0 then ms = -ms end
  local used, settled, open = 0, 0, 0
  if v then
    local head, current, total = read('<ddd', v)
    local base = 0
    if #v == BUDGET_BYTES then base, settled, open = read('<ddd', v, WINDOW_BYTES + 1) end
    local slot = slot_at(now, ms)
    if has_ended(head, total, slot) then
      total = 0
    elseif slot > head then
      current, total = moved(head, current, total, past_of(redis.call('HGET', keys[2], argv[FIELDS + i])), slot)
    end
    used = base + total
  end
  reply[3 * i + 2], reply[3 * i + 3], reply[3 * i + 4] = used, settled, open
end
return struct.pack('<' .. ('d'):rep(#reply), unpack(reply))
