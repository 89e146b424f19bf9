-- Rows of usage: fields of hashes, each with its amounts in 7 bytes, up to the last that is not 0.
local ROW_FORMATS = {}
local function row_format(count)
  local format = ROW_FORMATS[count]
  if not format then
    format = '<' .. ('I7'):rep(count)
    ROW_FORMATS[count] = format
  end
  return format
end

-- What `lines` rows come to, before anything is written. From arg[at] on each has for how many seconds its hash is kept after its last
-- new row, how many rows that takes (0: any number), how many amounts follow, and those; in keys its hash and the set of teams of its
-- month, after keys[key_at]; in argv, after argv[field_at], all fields, then all fields to use instead where there is no room (empty:
-- none), then all teams (empty: not listed). Returns the rows and the place after their numbers, or nil and an error (nil: an amount
-- would pass the largest).
local function added_rows(arg, at, lines, keys, key_at, argv, field_at)
  local rows, places, sizes = {}, {}, {}
  for l = 1, lines do
    local key, index = keys[key_at + 2 * l - 1], keys[key_at + 2 * l]
    local field, other, team = argv[field_at + l], argv[field_at + lines + l], argv[field_at + 2 * lines + l]
    local kept, bound, count = arg[at], arg[at + 1], arg[at + 2]
    local row, v = places[key .. '\n' .. field], nil
    if not row then
      v = redis.pcall('HGET', key, field)
      if type(v) == 'table' then return nil, v end
      if not v and bound > 0 then
        local size = sizes[key] or redis.pcall('HLEN', key)
        if type(size) == 'table' then return nil, size end
        if size >= bound and other ~= '' then
          field = other
          row = places[key .. '\n' .. field]
          v = not row and redis.pcall('HGET', key, field)
          if type(v) == 'table' then return nil, v end
        end
        if not row and not v then size = size + 1 end
        sizes[key] = size
      end
    end
    if not row then
      row = {key = key, field = field, index = index, team = team, kept = kept, new = not v, sum = {}}
      if v then
        if #v % 7 ~= 0 or #v > 7 * MOST_AMOUNTS then return nil, redis.error_reply('ERR not a row of usage') end
        row.sum = {struct.unpack(row_format(#v / 7), v)}
        row.sum[#row.sum] = nil
      elseif team ~= '' then
        -- What is written is looked at before the first write: an error in between would leave a part of it.
        local listed = redis.pcall('SCARD', index)
        if type(listed) == 'table' then return nil, listed end
      end
      rows[#rows + 1] = row
      places[key .. '\n' .. field] = row
    end
    for j = 1, count do
      local sum = (row.sum[j] or 0) + arg[at + 2 + j]
      if sum > MAX_AMOUNT then return nil end
      row.sum[j] = sum
    end
    at = at + 3 + count
  end
  return rows, at
end

local function write_rows(rows)
  for _, row in ipairs(rows) do
    redis.call('HSET', row.key, row.field, struct.pack(row_format(#row.sum), unpack(row.sum)))
    if row.new then
      redis.call('EXPIRE', row.key, row.kept)
      if row.team ~= '' then
        redis.call('SADD', row.index, row.team)
        redis.call('EXPIRE', row.index, SPEND_KEPT_S)
      end
    end
  end
end
