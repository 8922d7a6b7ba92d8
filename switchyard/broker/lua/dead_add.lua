-- dead_add: add a dead letter to its dead list, once.
-- KEYS[1] dead list: ids, oldest first
-- KEYS[2] dead letters: hash id -> JSON
-- ARGV[1] id
-- ARGV[2] dead letter as JSON
-- Returns 1 when added, 0 when it was there (its content is replaced). O(1).

local added = redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
if added == 1 then redis.call("RPUSH", KEYS[1], ARGV[1]) end
return added
