#!lua flags=allow-oom
-- group_count: count a job of a group as succeeded, or note that the group's callbacks were sent.
-- KEYS[1] group: hash, size and ids of the jobs that have succeeded, or "sent"
-- ARGV[1] id of the job, "" for the callbacks
-- ARGV[2] ttl_ms
-- Returns 1 when all jobs have succeeded and no callback is noted as sent, 0 otherwise, -1 for an unknown group. O(1).

local size = redis.call("HGET", KEYS[1], "size")
if not size then return -1 end
local sent = redis.call("HEXISTS", KEYS[1], "sent") == 1
if ARGV[1] == "" then
  redis.call("UNLINK", KEYS[1])
  redis.call("HSET", KEYS[1], "size", size, "sent", 1)
  sent = true
elseif not sent then
  redis.call("HSET", KEYS[1], "job:" .. ARGV[1], 1)
end
redis.call("PEXPIRE", KEYS[1], ARGV[2])
if sent or redis.call("HLEN", KEYS[1]) - 1 < tonumber(size) then return 0 end
return 1
