#!lua flags=allow-oom
-- flush: drop every message of a family that is not dead, quarantined or finished.
-- KEYS[1] leases: sorted set
-- KEYS[2...] bodies, waiting, due, bells, parked, notes, unique, slots, waits, turns, holds
-- ARGV[1...] the owners whose holds are among the keys
-- Leases stay. The token of a dropped message that is running is stale.
-- Returns 1, or 0 when the owners have changed: then it does nothing. O(owners and keys), freed later.

local known, dropped = {}, {}
for i = 1, #ARGV do known[ARGV[i]] = true end
for i = 2, #KEYS do dropped[#dropped + 1] = KEYS[i] end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
  if not known[owner] then return 0 end
end
redis.call("UNLINK", unpack(dropped))
return 1
