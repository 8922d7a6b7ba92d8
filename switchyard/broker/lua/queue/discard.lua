#!lua flags=allow-oom
-- discard: drop a dead letter for good.
-- KEYS[1] dead letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..5] done: hashes
-- KEYS[6] notes: hash
-- KEYS[7] unique: hash
-- ARGV[1] id
-- ARGV[2] nonce: a call repeated with it gets the same answer
-- Returns 1 when it is gone, also by an earlier call; 0 when there is no such dead letter. O(dead letters) for the list.
--@include now_ms
--@include finish
--@include held

local id, word = ARGV[1], "discard " .. ARGV[2]
if redis.call("HDEL", KEYS[1], id) == 0 then return repeated(id, word, KEYS[6], KEYS[4], KEYS[5]) and 1 or 0 end
redis.call("LREM", KEYS[2], -1, id)
finish({ id }, { word }, nil, KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
return 1
