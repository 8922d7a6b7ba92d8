#!lua flags=allow-oom
-- job_write: record steps of jobs, each unless a newer step of its job is recorded.
-- KEYS[1...] job: hash, and its events: stream; two for each step
-- ARGV[1...] a step each, as MessagePack: {sequence, ttl_ms, event data as JSON, whether no event may follow this one,
--   {field, value, ...}}. The sequence grows with each step of a job; a lower one is late. The first field is the
--   state.
-- A requeued job (sequence over 2^20 more) starts with a clean record. Fields that no longer
-- apply are removed: the reason of a wait that is over, the error of a job that succeeded.
-- Returns for each step 1 written, 0 late, -1 the job was cancelled before it, or the error. O(steps).

local function write(job, events, step)
  local sequence, ttl_ms, event, ended, fields = unpack(step)
  local state, recorded, followed, due, reason, failed =
    unpack(redis.call("HMGET", job, "state", "sequence", "followed", "next_attempt_at", "reason", "error"))
  local new = fields[2]
  recorded = tonumber(recorded or -1)
  local known_life, life = math.floor(recorded / 1048576), math.floor(sequence / 1048576)
  if state == "cancelled" and known_life >= life then return -1 end
  if sequence < recorded then return 0 end
  local over = {} -- fields to remove; an absent one needs no command
  if recorded >= 0 and life > known_life then
    over = { "cancel", "finished_at", "result", "error", "progress", "reason", "next_attempt_at" }
  else
    local waits_no_more = ended or new == "running" or new == "retrying"
    if waits_no_more and due then over[1] = "next_attempt_at" end
    if waits_no_more and reason then over[#over + 1] = "reason" end
    if new == "succeeded" and failed then over[#over + 1] = "error" end
    -- It may be requeued, and must not start its next life cancelled.
    if new == "dead" then over[#over + 1] = "cancel" end
  end
  if #over > 0 then redis.call("HDEL", job, unpack(over)) end
  redis.call("HSET", job, "sequence", sequence, unpack(fields))
  redis.call("PEXPIRE", job, ttl_ms)
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
