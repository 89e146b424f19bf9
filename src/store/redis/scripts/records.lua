-- Records of reservations and the terms that they refer to, put before each script that reads or writes them.
--
-- records   hash: the 16 bytes of an id -> RECORD: state (0: open; 2 and 3: settled), gone_at, reserved_at, expires_at, all but the state
--           of 7 bytes and in the store's time; of a settled one what settle.lua adds; then the body, which only programs read. One
--           hash for all of them: keys of their own, with an index of when they are gone, would take four times the memory. The sweep goes
--           through it. Under `layout` a line of text, so that Redis keeps the hash as a table and not as a list that it has to search.
-- terms     hash: 12 bytes that a body begins with after its version -> until when they are kept, a double; then what reservations
--           of one kind have in common, which only programs read.
-- earlier   of layout 4: sorted set of the ids, in hexadecimal digits, of records under keys of their own (`reservation:<id>`: state,
--           reserved_at, expires_at, gone_at as doubles, then the same). Each is moved where it is met, and the sweep moves the others.
local RECORD, RECORD_BYTES = '<BI7I7I7', 22

-- Moves a record of layout 4 to where records are now, and returns it.
local function moved_record(records, earlier, id)
  local digits = id:gsub('.', function(byte) return ('%02x'):format(byte:byte()) end)
  local key = earlier:sub(1, -2) .. ':' .. digits
  local old = redis.call('GET', key)
  if not old then return false end
  local state, reserved_at, expires_at, gone_at = struct.unpack('<dddd', old)
  local rest = old:sub(33)
  -- Settled before thresholds were kept: none were reported.
  if state == 1 then state, rest = 2, rest:sub(1, 24) .. struct.pack('<d', 0) .. rest:sub(25) end
  local record = struct.pack(RECORD, state, gone_at, reserved_at, expires_at) .. rest
  -- Never over another: then both stay, and the one here counts.
  if redis.call('HSETNX', records, id, record) == 0 then return redis.call('HGET', records, id) end
  redis.call('DEL', key)
  redis.call('ZREM', earlier, digits)
  return record
end

-- The record under an id, or false.
local function record_of(records, earlier, id)
  local record = redis.call('HGET', records, id)
  if not record and redis.call('EXISTS', earlier) == 1 then record = moved_record(records, earlier, id) end
  return record
end

-- The note of a settlement, of a record that is settled; else false.
local function settled_note(record)
  local state = record:byte()
  if state == 3 then return record:sub(32, 31 + struct.unpack('<I2', record, 30)) end
  return state == 2 and record:sub(55, 54 + struct.unpack('<d', record, 39))
end

-- Whether a record can be read that refers to the `hashes` and is gone by `gone_at` of each: the terms are there, or in `bodies`. They are
-- kept for a day longer, as a settlement keeps its record for less than that, and renewed a day early, so that this writes seldom.
local function keeps_terms(terms, records, hashes, bodies, gone_at)
  if #hashes == 0 then return true end
  local known, renewed = redis.call('HMGET', terms, unpack(hashes)), {}
  for t, hash in ipairs(hashes) do
    local kept, body = known[t], nil
    if kept and #kept >= 8 and (not bodies[t] or kept:sub(9) == bodies[t]) then
      if struct.unpack('<d', kept) < gone_at[t] + DAY_MS then body = kept:sub(9) end
    elseif bodies[t] then
      body = bodies[t]
    else
      return false
    end
    if body then
      renewed[#renewed + 1] = hash
      renewed[#renewed + 1] = struct.pack('<d', gone_at[t] + 2 * DAY_MS) .. body
    end
  end
  if #renewed > 0 then
    redis.call('HSET', terms, unpack(renewed))
    redis.call('HSETNX', records, 'layout', 'state, gone_at, reserved_at, expires_at, and the rest as in records.lua')
  end
  return true
end
