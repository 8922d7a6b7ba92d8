#!lua flags=allow-oom
-- alert_raise: count an alert in its group; the first of a window makes the group due.
-- KEYS[1] due: sorted set, fingerprint -> ms since epoch
-- KEYS[2] group: hash
-- ARGV[1] fingerprint
-- ARGV[2] window_ms
-- ARGV[3] the first alert as JSON, the group's sample
-- Returns the group's count. O(log N).
--@include now_ms

local now = now_ms()
if redis.call("EXISTS", KEYS[2]) == 0 then
  redis.call("HSET", KEYS[2], "sample", ARGV[3], "first_at", now, "sent", 0, "window_end", now + tonumber(ARGV[2]))
  redis.call("ZADD", KEYS[1], now, ARGV[1])
end
redis.call("HSET", KEYS[2], "last_at", now)
return redis.call("HINCRBY", KEYS[2], "count", 1)
