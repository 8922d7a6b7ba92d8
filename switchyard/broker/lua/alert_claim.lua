#!lua flags=allow-oom
-- alert_claim: claim one due group for sending; another process may claim it when the claim expires.
-- KEYS[1] due: sorted set, fingerprint -> ms since epoch
-- KEYS[2] group: hash
-- ARGV[1] fingerprint
-- ARGV[2] lease_ms of the claim
-- ARGV[3] nonce: a call repeated with it gets the same claim
-- Returns {token, sample, count, sent, first_at, last_at}, or nil when there is nothing to send. O(log N).
--@include now_ms

local now = now_ms()
local due = redis.call("ZSCORE", KEYS[1], ARGV[1])
if not due then return nil end
local repeated = redis.call("HGET", KEYS[2], "claim") == ARGV[3]
if tonumber(due) > now and not repeated then return nil end
local group = redis.call("HMGET", KEYS[2], "sample", "count", "sent", "first_at", "last_at")
if not group[1] or group[2] == group[3] then
  redis.call("ZREM", KEYS[1], ARGV[1])
  redis.call("DEL", KEYS[2])
  return nil
end
local token = repeated and tonumber(due) or now + tonumber(ARGV[2])
redis.call("ZADD", KEYS[1], token, ARGV[1])
redis.call("HSET", KEYS[2], "claim", ARGV[3])
return {token, group[1], group[2], group[3], group[4], group[5]}
