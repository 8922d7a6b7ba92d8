#!lua flags=allow-oom
-- lapsed: list the owners whose lease expired, so that their messages are reclaimed.
-- KEYS[1] leases: sorted set
-- KEYS[2] swept: string
-- KEYS[3] notes: hash
-- ARGV[1] lease_ms
-- ARGV[2] gap_ms: after a longer pause, or a clock set back, every lease is renewed instead of expiring, because the
--   server or the clock stood still and no owner could renew
-- Places of limits that no owner has are freed on the way.
-- A clock set back by more than a second is noted: what it has delayed meanwhile is due too late.
-- Returns the owners, at most 100, or {"rearmed"} first and none. O(owners).
--@include now_ms
--@include fair
--@include limits

if redis.call("EXISTS", string.sub(KEYS[1], 1, -7) .. "turns") == 1 then pcall(limits_of(KEYS[1]).sweep) end
local now = now_ms()
local before = tonumber(redis.call("GET", KEYS[2]) or now)
redis.call("SET", KEYS[2], now)
if now - before > tonumber(ARGV[2]) or now < before then
  if before - now > 1000 then redis.call("HSET", KEYS[3], "ahead", before - now) end
  local owners = redis.call("ZRANGEBYSCORE", KEYS[1], "(0", "+inf")
  for _, owner in ipairs(owners) do redis.call("ZADD", KEYS[1], now + tonumber(ARGV[1]), owner) end
  return { "rearmed" }
end
return redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", now, "LIMIT", 0, 100)
