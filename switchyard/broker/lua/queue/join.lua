#!lua flags=allow-oom
-- join: create the lease of a new owner. An owner's name is used once.
-- KEYS[1] leases: sorted set
-- KEYS[2] running: hash
-- ARGV[1] owner
-- ARGV[2] lease_ms
-- ARGV[3] work: what it runs, see report; "" to record nothing
-- Returns 1. O(log owners).
--@include now_ms

if ARGV[3] ~= "" then redis.call("HSET", KEYS[2], ARGV[1], ARGV[3]) end
redis.call("ZADD", KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
return 1
