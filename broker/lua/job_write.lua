#!lua flags=allow-oom
-- job_write: record where a job stands, unless something newer is recorded.
-- KEYS[1] job: hash
-- KEYS[2] events: stream
-- ARGV[1] sequence: grows with each step of a job; a lower one is late news
-- ARGV[2] ttl_ms
-- ARGV[3] event name
-- ARGV[4] event data, JSON
-- ARGV[5] "1" when no event may follow this one
-- ARGV[6...] field, value, ...; the first is the state
-- A requeued job (sequence over 2^20 more) starts with a clean record. One that runs or ended waits for nothing any more,
-- and one that succeeded has no error: what was said of it goes.
-- Returns 1 written, 0 late, -1 the job was cancelled before this step. O(1).

local sequence = tonumber(ARGV[1])
local state, recorded = unpack(redis.call("HMGET", KEYS[1], "state", "sequence"))
recorded = tonumber(recorded or -1)
if state == "cancelled" and math.floor(recorded / 1048576) >= math.floor(sequence / 1048576) then
  return -1
end
if sequence < recorded then return 0 end
if recorded >= 0 and math.floor(sequence / 1048576) > math.floor(recorded / 1048576) then
  redis.call("HDEL", KEYS[1], "cancel", "finished_at", "result", "error", "progress", "reason", "next_attempt_at")
end
if ARGV[5] == "1" or ARGV[7] == "running" then redis.call("HDEL", KEYS[1], "next_attempt_at", "reason") end
if ARGV[7] == "succeeded" then redis.call("HDEL", KEYS[1], "error") end
redis.call("HSET", KEYS[1], "sequence", sequence, unpack(ARGV, 6))
redis.call("PEXPIRE", KEYS[1], ARGV[2])
redis.call("XADD", KEYS[2], "MAXLEN", "~", 256, "*", "event", ARGV[3], "data", ARGV[4])
-- It may be requeued, and must not start its next life cancelled.
if ARGV[7] == "dead" then redis.call("HDEL", KEYS[1], "cancel") end
if ARGV[5] == "1" then redis.call("XADD", KEYS[2], "*", "event", "end", "data", ARGV[4]) end
redis.call("PEXPIRE", KEYS[2], ARGV[2])
return 1
