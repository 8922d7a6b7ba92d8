#!lua flags=allow-oom
-- batch_count: count how members of a batch ended, each once; return its figures, and the callbacks that are to be sent.
-- KEYS[1] batch: hash
-- KEYS[2] open: hash, members that have not ended
-- KEYS[3..5] done, failed, cancelled: hashes, members that have
-- ARGV[1] ttl_ms of a batch that has ended
-- ARGV[2] field that is noted with the time: "closed" (no more members are needed to complete it), "abandoned" (closed, and
-- it cannot succeed), "cancelled", or the name of a callback that was sent after "sent:"; "" for none
-- ARGV[3...] id, and "done", "failed" or "cancelled", at most 500 pairs
-- A member that is done stays so. Any other may end again: a dead one that was requeued. Only members that were added count.
-- Returns {"unknown"}, or {state, open, done, failed, cancelled, name of each callback that is to be sent and was not noted
-- as sent …} with state "open", "complete" or "succeeded". O(pairs).
--@include now_ms

if redis.call("HEXISTS", KEYS[1], "facts") == 0 then return { "unknown" } end
local now = now_ms()
local function note(name) redis.call("HSETNX", KEYS[1], name, now) end

local changed = false
for n = 3, #ARGV, 2 do
  local id, to = ARGV[n], KEYS[4]
  if ARGV[n + 1] == "done" then to = KEYS[3] end
  if ARGV[n + 1] == "cancelled" then to = KEYS[5] end
  for _, from in ipairs({ KEYS[2], KEYS[4], KEYS[5] }) do
    local queue = from ~= to and redis.call("HGET", from, id)
    if queue then
      redis.call("HSET", to, id, queue)
      redis.call("HDEL", from, id)
      changed = true
    end
  end
end
if changed then redis.call("HSET", KEYS[1], "changed", now) end
if ARGV[2] ~= "" then note(ARGV[2]) end
if ARGV[2] == "abandoned" then note("closed") end

local closed, abandoned, cancelled_at = unpack(redis.call("HMGET", KEYS[1], "closed", "abandoned", "cancelled"))
local open, done = redis.call("HLEN", KEYS[2]), redis.call("HLEN", KEYS[3])
local failed, cancelled = redis.call("HLEN", KEYS[4]), redis.call("HLEN", KEYS[5])
local state = "open"
if closed and open == 0 then
  state = "complete"
  note("completed")
  if failed + cancelled == 0 and not abandoned and not cancelled_at then
    state = "succeeded"
    note("succeeded")
  end
  for n = 1, 5 do redis.call("PEXPIRE", KEYS[n], ARGV[1]) end
end
local answer = { state, open, done, failed, cancelled }
local wanted = { on_failure = failed > 0 or abandoned, on_complete = state ~= "open", on_success = state == "succeeded" }
for _, name in ipairs({ "on_failure", "on_success", "on_complete" }) do
  if wanted[name] and redis.call("HEXISTS", KEYS[1], name) == 1
    and redis.call("HEXISTS", KEYS[1], "sent:" .. name) == 0 then
    answer[#answer + 1] = name
  end
end
return answer
