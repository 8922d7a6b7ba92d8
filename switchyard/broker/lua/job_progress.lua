-- job_progress: record the progress of a running job, and report whether its cancellation was requested.
-- KEYS[1] jobs: hash
-- KEYS[2] progress: hash
-- KEYS[3] followed: sorted set
-- KEYS[4] ended: hash; events lie beside it
-- KEYS[5] notes: hash
-- ARGV[1] id
-- ARGV[2] progress, JSON
-- ARGV[3] ttl_ms of the events
-- Returns 1 when the cancellation was requested, else 0. O(1).
--@include records

local known = redis.call("HGET", KEYS[1], ARGV[1])
if known then
  local _, _, state = head_of(string.sub(known, 21))
  if state == "running" then
    redis.call("HSET", KEYS[2], ARGV[1], ARGV[2])
    if redis.call("ZSCORE", KEYS[3], ARGV[1]) then
      local events = beside(KEYS[4], ARGV[1] .. ":events")
      redis.call("XADD", events, "MAXLEN", "~", 256, "*", "event", "progress", "data", ARGV[2])
      redis.call("PEXPIRE", events, ARGV[3])
    end
  end
end
return redis.call("HEXISTS", KEYS[5], "asked:" .. ARGV[1])
