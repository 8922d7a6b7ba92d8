-- window_reserve: start now, or reserve the next start, under a limit of N starts in any window.
-- KEYS[1] window: sorted set, member -> start or reserved start (ms since epoch)
-- ARGV[1] member (message id)
-- ARGV[2] limit N
-- ARGV[3] window_ms
-- Returns the ms to wait, 0 means start now; and how many starts were dropped, because a clock that was ahead had written
-- them: N of them follow in a window at most, so that M of them lie within M / N windows. O(log M + N + dropped).
-- A member whose reserved start has come starts, unless late starts of others fill the window: then it reserves anew.
--@include now_ms

local now, limit, window = now_ms(), tonumber(ARGV[2]), tonumber(ARGV[3])
local newest = redis.call("ZRANGE", KEYS[1], -1, -1, "WITHSCORES")
local dropped = 0
if newest[2] and tonumber(newest[2]) > now + window then
  -- Of a larger limit before, some are dropped as well: they reserve anew when they are due, and none starts too early.
  local latest = now + window * math.ceil(redis.call("ZCOUNT", KEYS[1], now, "+inf") / limit)
  dropped = redis.call("ZREMRANGEBYSCORE", KEYS[1], "(" .. string.format("%.0f", latest), "+inf")
end
local mine = redis.call("ZSCORE", KEYS[1], ARGV[1])
if mine and tonumber(mine) > now then return { tonumber(mine) - now, dropped } end
redis.call("ZREM", KEYS[1], ARGV[1])
redis.call("ZREMRANGEBYSCORE", KEYS[1], "-inf", now - window)

-- A member with a due slot is limited by past starts only; one without, by every reserved slot as well.
local upper = mine and now or "+inf"
local before = redis.call("ZREVRANGEBYSCORE", KEYS[1], upper, "-inf", "WITHSCORES", "LIMIT", limit - 1, 1)
local start = now
if before[2] then start = math.max(now, tonumber(before[2]) + window) end
redis.call("ZADD", KEYS[1], start, ARGV[1])
local last = redis.call("ZRANGE", KEYS[1], -1, -1, "WITHSCORES")
redis.call("PEXPIRE", KEYS[1], math.max(start, tonumber(last[2])) - now + 2 * window)
return { start - now, dropped }
