#!lua flags=allow-oom
-- join: create the lease of a new owner. An owner's name is used once.
-- KEYS[1] leases: sorted set
-- ARGV[1] owner
-- ARGV[2] lease_ms
-- Returns 1. O(log owners).
--@include now_ms

redis.call("ZADD", KEYS[1], now_ms() + tonumber(ARGV[2]), ARGV[1])
return 1
