#!lua flags=allow-oom
-- pause: lease no messages of a family until it is resumed.
-- KEYS[1] paused: string
-- Returns 1, or 0 when it was paused already. O(1).
--@include now_ms

return redis.call("SET", KEYS[1], now_ms(), "NX") and 1 or 0
