-- job_progress: record the progress of a running job, and report whether its cancellation was requested.
-- KEYS[1] job: hash
-- KEYS[2] events: stream
-- ARGV[1] progress, JSON
-- Returns 1 when the cancellation was requested, else 0. O(1).

if redis.call("HGET", KEYS[1], "state") == "running" then
  redis.call("HSET", KEYS[1], "progress", ARGV[1])
  if redis.call("HEXISTS", KEYS[1], "followed") == 1 then
    redis.call("XADD", KEYS[2], "MAXLEN", "~", 256, "*", "event", "progress", "data", ARGV[1])
    local ttl = redis.call("PTTL", KEYS[1])
    if ttl > 0 then redis.call("PEXPIRE", KEYS[2], ttl) end
  end
end
return tonumber(redis.call("HGET", KEYS[1], "cancel") or 0)
