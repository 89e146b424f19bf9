-- The outbox, put before each script that reads or writes it.
--
-- KEYS 1 crossings  list: what settle.lua appends, one item for each crossed threshold: the length of the id in a byte, the id, the payload.
--                   The scripts move items to the keys below before they do anything else, OUTBOX_MOVED at a time
--      2 entries    hash: the id of an entry -> how often it was claimed, a double; then its payload
--      3 order      sorted set with one score for all, so in the order of its members: the ids
--      4 due        sorted set: the ids of the entries that are not done, by the store's time at which they are due. Of the queue without a
--                   name; those of the others have names of their own, which are this one, `:` and the queue's
--      5 meta: as in meta.lua. Of a layout above LAYOUT nothing is written: the reply is the error `LAYOUT <found>`
local function due_of(id)
  local queue = id:match('/(.*)$')
  return queue and KEYS[4] .. ':' .. queue or KEYS[4]
end

local function add_entry(id, payload)
  if redis.call('HEXISTS', KEYS[2], id) == 1 then return end
  redis.call('ZADD', KEYS[3], 0, id)
  redis.call('ZADD', due_of(id), 0, id)
  -- Last: where a key above is of something else, it is added when that has gone.
  redis.call('HSET', KEYS[2], id, struct.pack('<d', 0) .. payload)
end

look_at_layout(KEYS[5])
for _ = 1, OUTBOX_MOVED do
  local item = redis.call('LINDEX', KEYS[1], 0)
  if not item then break end
  local length = item:byte(1) or 0
  -- Foreign data holds nothing up.
  if length > 0 and #item > length then add_entry(item:sub(2, 1 + length), item:sub(2 + length)) end
  redis.call('LPOP', KEYS[1])
end
