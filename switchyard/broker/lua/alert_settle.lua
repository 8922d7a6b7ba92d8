#!lua flags=allow-oom
-- alert_settle: record how many alerts of a claimed group were sent; it is due again at the window's end.
-- KEYS[1] due: sorted set, fingerprint -> ms since epoch
-- KEYS[2] group: hash
-- ARGV[1] fingerprint
-- ARGV[2] token of the claim
-- ARGV[3] count that was sent
-- ARGV[4] window_ms
-- Returns 1, or 0 when the claim had expired. O(log N).
--@include now_ms

if redis.call("ZSCORE", KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
local now = now_ms()
local window_end = tonumber(redis.call("HGET", KEYS[2], "window_end"))
if window_end <= now then window_end = now + tonumber(ARGV[4]) end
redis.call("HSET", KEYS[2], "sent", ARGV[3], "window_end", window_end)
redis.call("ZADD", KEYS[1], window_end, ARGV[1])
return 1
