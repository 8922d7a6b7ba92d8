#!lua flags=allow-oom
-- ack: acknowledge messages that an owner finished.
-- KEYS[1] hold: hash
-- KEYS[2] bodies: hash
-- KEYS[3..4] done: hashes
-- KEYS[5] notes: hash
-- KEYS[6] unique: hash
-- ARGV[1...] id, token, at most 500 pairs
-- Returns the positions (1 …) of pairs whose token is stale; they change nothing. O(messages).
--@include now_ms
--@include fair
--@include limits
--@include finish
--@include acked

return acked(1, #ARGV, KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6])
