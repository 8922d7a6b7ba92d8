#!lua flags=allow-oom
-- generation_make: give a keyspace an id, once, and only if it holds no key of Switchyard.
-- KEYS[1] generation: hash
-- KEYS[2] missed: set
-- KEYS[3...] keys that a keyspace in use has
-- ARGV[1] id, for a new one
-- Returns its id, or nil when it has none and is in use. O(keys).
--@include now_ms

local id = redis.call("HGET", KEYS[1], "id")
if id then return id end
for i = 2, #KEYS do
  if redis.call("EXISTS", KEYS[i]) == 1 then return nil end
end
redis.call("HSET", KEYS[1], "id", ARGV[1], "made_at", now_ms(), "instead_of", "")
return ARGV[1]
