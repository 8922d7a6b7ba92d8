#!lua flags=allow-oom
-- alert_end: make a group due at once, what was raised of it until a moment counted as sent.
-- KEYS[1] due: sorted set, fingerprint -> ms since epoch
-- KEYS[2] group: hash
-- ARGV[1] fingerprint
-- ARGV[2] ms since epoch
-- Returns 1 if all of it is counted as sent, else 0. O(log N).

local group = redis.call("HMGET", KEYS[2], "last_at", "count")
local over = group[1] and tonumber(group[1]) <= tonumber(ARGV[2])
if over then redis.call("HSET", KEYS[2], "sent", group[2]) end
redis.call("ZADD", KEYS[1], "XX", "LT", 0, ARGV[1])
return over and 1 or 0
