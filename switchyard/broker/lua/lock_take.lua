#!lua flags=allow-oom
-- lock_take: acquire a named lock, or renew it for its holder.
-- KEYS[1] lock: string, token of the holder
-- ARGV[1] token
-- ARGV[2] lease_ms
-- Returns 1 when the token holds the lock now, else 0. O(1).

local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1
