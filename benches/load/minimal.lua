#!lua
-- Eight counters in one string and a reservation record: the least that one decision on eight limits can do in Redis. No windows,
-- no periods, no settlement: the service around it is a yardstick, not a policy service.
--
-- KEYS 1 counters   8 little-endian doubles
--      2 record
-- ARGV 1 8 amounts and 8 limits, little-endian doubles      2 opaque bytes of the record
-- Reply: 1 granted, 0 refused
local a1, a2, a3, a4, a5, a6, a7, a8, l1, l2, l3, l4, l5, l6, l7, l8 =
  struct.unpack('<dddddddddddddddd', ARGV[1])
local state = redis.call('GET', KEYS[1])
if state then
  local c1, c2, c3, c4, c5, c6, c7, c8 = struct.unpack('<dddddddd', state)
  a1, a2, a3, a4, a5, a6, a7, a8 = a1 + c1, a2 + c2, a3 + c3, a4 + c4, a5 + c5, a6 + c6, a7 + c7, a8 + c8
end
if a1 > l1 or a2 > l2 or a3 > l3 or a4 > l4 or a5 > l5 or a6 > l6 or a7 > l7 or a8 > l8 then return 0 end
redis.call('SET', KEYS[1], struct.pack('<dddddddd', a1, a2, a3, a4, a5, a6, a7, a8))
redis.call('SET', KEYS[2], ARGV[2], 'PX', 600000)
return 1
