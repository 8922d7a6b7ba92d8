#!lua flags=allow-oom
-- lock_release: release a lock, if this token still holds it.
-- KEYS[1] lock: string, token of the holder
-- KEYS[2] fence: string, number of the last acquisition; absent for a lock without numbers
-- ARGV[1] token
-- ARGV[2] number of this acquisition; absent for a lock without numbers
-- The number counts on: a renewal that was on its way meanwhile would acquire the lock again, for nobody.
-- Returns 1 when released, else 0. O(1).

if ARGV[2] and redis.call("GET", KEYS[2]) == ARGV[2] then redis.call("INCR", KEYS[2]) end
if redis.call("GET", KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call("DEL", KEYS[1])
