-- lock_release: release a lock, if this token still holds it.
-- KEYS[1] lock: string, token of the holder
-- ARGV[1] token
-- Returns 1 when released, else 0. O(1).

if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call("DEL", KEYS[1])
