#!lua flags=allow-oom
-- job_follow: keep a job's events from now on, for a follower.
-- KEYS[1] job: hash
-- A job without followers keeps no events: a stream takes 4 KiB with its first event.
-- Returns 1, or 0 when the job is unknown. O(1).

if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "followed", 1)
return 1
