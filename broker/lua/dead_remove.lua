-- dead_remove: take a letter out of its dead list.
-- KEYS[1] dead list: ids, oldest first
-- KEYS[2] dead letters: hash id -> JSON
-- ARGV[1] id
-- Returns 1 when removed, 0 when it was not there. O(N) of the list.

local removed = redis.call("HDEL", KEYS[2], ARGV[1])
redis.call("LREM", KEYS[1], 0, ARGV[1])
return removed
