-- job_cancel: request the cancellation of a job; a job that is not running ends here.
-- KEYS[1] job: hash
-- KEYS[2] events: stream
-- ARGV[1] ttl_ms of a job that ends here
-- ARGV[2] event data for the state cancelled, JSON
-- ARGV[3] place of its message: "cancelled" (it never starts), "asked" (a worker holds it); else the job's state decides
-- Returns "unknown", "ended", "asked" (running: it stops at its next step) or "cancelled". O(1).
--@include now_ms

local state = redis.call("HGET", KEYS[1], "state")
if not state then return "unknown" end
if state == "cancelled" or state == "succeeded" or state == "expired" or state == "dead" then return "ended" end
redis.call("HSET", KEYS[1], "cancel", 1)
if ARGV[3] == "asked" or (ARGV[3] ~= "cancelled" and state == "running") then return "asked" end
redis.call("HSET", KEYS[1], "state", "cancelled", "finished_at", now_ms(), "next_attempt_at", "")
if redis.call("HEXISTS", KEYS[1], "followed") == 1 then
  redis.call("XADD", KEYS[2], "*", "event", "state", "data", ARGV[2])
  redis.call("XADD", KEYS[2], "*", "event", "end", "data", ARGV[2])
end
redis.call("PEXPIRE", KEYS[1], ARGV[1])
redis.call("PEXPIRE", KEYS[2], ARGV[1])
return "cancelled"
