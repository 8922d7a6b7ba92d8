#!lua flags=allow-oom
-- ends_drop: drop notes of ended members that their batches have counted.
-- KEYS[1] ends: hash
-- ARGV[1...] id, note as it was read, at most 500 pairs
-- A note that has changed since is of a newer end, and stays.
-- Returns the number of notes that are dropped. O(pairs).

local counted = {}
for n = 1, #ARGV, 2 do
  if redis.call("HGET", KEYS[1], ARGV[n]) == ARGV[n + 1] then counted[#counted + 1] = ARGV[n] end
end
if #counted == 0 then return 0 end
return redis.call("HDEL", KEYS[1], unpack(counted))
