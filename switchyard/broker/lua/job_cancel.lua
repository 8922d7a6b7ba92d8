-- job_cancel: request the cancellation of a job, where the broker finds no message by its id.
-- KEYS[1] jobs: hash
-- KEYS[2] notes: hash
-- ARGV[1] id
-- ARGV[2] place of its message: "cancelled" (it never starts), "asked" (a worker holds it); else the job's state decides
-- Returns "unknown", "asked" (running: it stops at its next step) or "cancelled" (it never starts). O(1).
--@include records

local known = redis.call("HGET", KEYS[1], ARGV[1])
if not known then return "unknown" end
redis.call("HSET", KEYS[2], "asked:" .. ARGV[1], 1)
local _, _, state = head_of(string.sub(known, 21))
if ARGV[2] == "asked" or (ARGV[2] ~= "cancelled" and state == "running") then return "asked" end
return "cancelled"
