#!lua flags=allow-oom
-- job_write: record where jobs stand, each unless something newer is recorded of it.
-- KEYS[1...] job: hash, and its events: stream; two for each step
-- ARGV[1...] a step each, as MessagePack: {sequence, ttl_ms, event data as JSON, whether no event may follow this one,
--   {field, value, ...}}. The sequence grows with each step of a job; a lower one is late news. The first field is the
--   state.
-- A requeued job (sequence over 2^20 more) starts with a clean record. What it waited for is over,
-- and one that succeeded has no error: what was said of it goes.
-- Returns for each step 1 written, 0 late, -1 the job was cancelled before it, or what went wrong. O(steps).

local function write(job, events, step)
  local sequence, ttl_ms, event, ended, fields = unpack(step)
  local state, recorded, followed = unpack(redis.call("HMGET", job, "state", "sequence", "followed"))
  recorded = tonumber(recorded or -1)
  if state == "cancelled" and math.floor(recorded / 1048576) >= math.floor(sequence / 1048576) then
    return -1
  end
  if sequence < recorded then return 0 end
  if recorded >= 0 and math.floor(sequence / 1048576) > math.floor(recorded / 1048576) then
    redis.call("HDEL", job, "cancel", "finished_at", "result", "error", "progress", "reason", "next_attempt_at")
  end
  if ended or fields[2] == "running" or fields[2] == "retrying" then
    redis.call("HDEL", job, "next_attempt_at", "reason")
  end
  if fields[2] == "succeeded" then redis.call("HDEL", job, "error") end
  redis.call("HSET", job, "sequence", sequence, unpack(fields))
  redis.call("PEXPIRE", job, ttl_ms)
  -- It may be requeued, and must not start its next life cancelled.
  if fields[2] == "dead" then redis.call("HDEL", job, "cancel") end
  if followed then
    redis.call("XADD", events, "MAXLEN", "~", 256, "*", "event", "state", "data", event)
    if ended then redis.call("XADD", events, "*", "event", "end", "data", event) end
    redis.call("PEXPIRE", events, ttl_ms)
  end
  return 1
end

local answers = {}
for at, packed in ipairs(ARGV) do
  local done, answer = pcall(write, KEYS[2 * at - 1], KEYS[2 * at], cmsgpack.unpack(packed))
  if not done then answer = type(answer) == "table" and answer.err or tostring(answer) end
  answers[at] = answer
end
return answers
