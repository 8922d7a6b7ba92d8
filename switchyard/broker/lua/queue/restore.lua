#!lua flags=allow-oom
-- restore: put a dead letter that was dropped back into the dead list, once, however often the call is repeated.
-- KEYS[1] dead letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..5] done: hashes
-- ARGV[1] id
-- ARGV[2] dead letter, JSON
-- It is forgotten that the id was finished: a requeued message whose id is remembered as finished would be dropped.
-- Returns 1 when it is in the dead list, also by an earlier call, 0 when a message of its id is in the queue. O(1).
--@include now_ms
--@include finish

if redis.call("HEXISTS", KEYS[3], ARGV[1]) == 1 then return 0 end
if redis.call("HSETNX", KEYS[1], ARGV[1], ARGV[2]) == 1 then redis.call("RPUSH", KEYS[2], ARGV[1]) end
note_end(ARGV[1], "failed", string.sub(KEYS[3], 1, -7) .. "ends")
redis.call("HDEL", KEYS[4], ARGV[1])
redis.call("HDEL", KEYS[5], ARGV[1])
return 1
