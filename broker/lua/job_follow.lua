#!lua flags=allow-oom
-- job_follow: have a job's events kept from now on, for somebody who follows it.
-- KEYS[1] job: hash
-- A job that nobody follows has none: a stream takes 4 KiB with its first event.
-- Returns 1, or 0 when the job is unknown. O(1).

if redis.call("EXISTS", KEYS[1]) == 0 then return 0 end
redis.call("HSET", KEYS[1], "followed", 1)
return 1
