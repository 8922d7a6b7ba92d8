#!lua
-- batch_add: add members to a batch; it is made by the first call that has its facts.
-- KEYS[1] batch: hash
-- KEYS[2] open: hash, members that have not ended
-- KEYS[3..5] done, failed, cancelled: hashes, members that have
-- ARGV[1] facts of a new batch, JSON; "" to add to one that is there
-- ARGV[2..4] bodies of its callbacks on_success, on_failure and on_complete, "" for none
-- ARGV[5...] id and queue of each member, at most 500 of them
-- A repeated call changes nothing more. One that has ended stays ended.
-- Returns for each member 1 when it is open, and to be sent, 0 when it has ended; or "unknown"; or "over" when the batch
-- is cancelled, or has succeeded, and one of them is new. O(members).
--@include now_ms

if ARGV[1] ~= "" and redis.call("HSETNX", KEYS[1], "facts", ARGV[1]) == 1 then
  redis.call("HSET", KEYS[1], "created", now_ms())
  for n, name in ipairs({ "on_success", "on_failure", "on_complete" }) do
    if ARGV[n + 1] ~= "" then redis.call("HSET", KEYS[1], name, ARGV[n + 1]) end
  end
end
if redis.call("HEXISTS", KEYS[1], "facts") == 0 then return "unknown" end
local answers, new = {}, {}
for n = 5, #ARGV, 2 do
  local ended = false
  for k = 3, 5 do ended = ended or redis.call("HEXISTS", KEYS[k], ARGV[n]) == 1 end
  answers[#answers + 1] = ended and 0 or 1
  if not ended and redis.call("HEXISTS", KEYS[2], ARGV[n]) == 0 then
    new[#new + 1], new[#new + 2] = ARGV[n], ARGV[n + 1]
  end
end
if #new == 0 then return answers end
local succeeded, cancelled = unpack(redis.call("HMGET", KEYS[1], "succeeded", "cancelled"))
if succeeded or cancelled then return "over" end
redis.call("HSET", KEYS[2], unpack(new))
redis.call("HSET", KEYS[1], "changed", now_ms())
for n = 1, 5 do redis.call("PERSIST", KEYS[n]) end
return answers
