-- dead_remove: remove a dead letter from its dead list.
-- KEYS[1] dead list: ids, oldest first
-- KEYS[2] dead letters: hash id -> JSON
-- ARGV[1] id
-- ARGV[2] the dead letter as it was read, or ""; with other content, of a message that died again, it stays
-- Returns 1 when removed, 0 when it was not there. O(N) of the list.

local letter = redis.call("HGET", KEYS[2], ARGV[1])
if not letter or (ARGV[2] ~= "" and ARGV[2] ~= letter) then return 0 end
redis.call("HDEL", KEYS[2], ARGV[1])
redis.call("LREM", KEYS[1], 0, ARGV[1])
return 1
