#!lua flags=allow-oom
-- generation_accept: give a keyspace a new id, in place of the ids that were missed.
-- KEYS[1] generation: hash
-- KEYS[2] missed: set
-- ARGV[1] id
-- Returns the ids that the new one replaces, separated by spaces. O(ids missed).
--@include now_ms

local ids = redis.call("SMEMBERS", KEYS[2])
local before = redis.call("HMGET", KEYS[1], "id", "instead_of")
for n = 1, 2 do
  if before[n] and before[n] ~= "" then ids[#ids + 1] = before[n] end
end
local instead_of = table.concat(ids, " ")
redis.call("HSET", KEYS[1], "id", ARGV[1], "made_at", now_ms(), "instead_of", instead_of)
redis.call("DEL", KEYS[2])
return instead_of
