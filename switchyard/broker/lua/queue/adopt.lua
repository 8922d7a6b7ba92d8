#!lua flags=allow-oom
-- adopt: lease parked messages to an owner that knows their call, before they are due; record that one knows it.
-- KEYS[1] bodies: hash
-- KEYS[2] due: sorted set
-- KEYS[3] leases: sorted set
-- KEYS[4] hold: hash
-- KEYS[5] token: string
-- KEYS[6] paused: string
-- KEYS[7] notes: hash
-- KEYS[8] parked: sorted set
-- KEYS[9] known: hash
-- KEYS[10] pauses of actors: hash
-- ARGV[1] owner
-- ARGV[2] call: what they are parked for
-- ARGV[3] kept_ms: time for which it is recorded that a worker knows the call
-- ARGV[4...] ids that were in the index, at most 500
-- An id that is no longer scheduled is not leased. An id that the owner holds was leased by this call before, and the
-- answer was lost, if it is not in the index; if it is, the owner fetched it when it was due. One of a paused actor is made
-- due: the fetch puts it off; and so is every one of a family with limits.
-- Returns {state, id, token, crashes, body, …}, as fetch does. O(ids · log scheduled).
--@include now_ms
--@include noted
--@include actor_pauses

local lease = redis.call("ZSCORE", KEYS[3], ARGV[1])
if not lease or tonumber(lease) == 0 then return { "gone" } end
redis.call("HSET", KEYS[9], ARGV[2], now_ms())
redis.call("PEXPIRE", KEYS[9], ARGV[3])
if redis.call("EXISTS", KEYS[6]) == 1 then return { "paused" } end

local by_actor = redis.call("EXISTS", KEYS[10]) == 1 and actor_pauses(KEYS[10], now_ms()).by_actor
local limited = redis.call("EXISTS", string.sub(KEYS[1], 1, -7) .. "limits") == 1
local answer = { "ok" }
for i = 4, #ARGV do
  local id = ARGV[i]
  local token = redis.call("HGET", KEYS[4], id)
  local listed = redis.call("ZREM", KEYS[8], ARGV[2] .. "\n" .. id) == 1
  if token then
    if listed then token = nil end
  elseif limited or by_actor and put_off_to(by_actor, redis.call("HGET", KEYS[1], id), id, now_ms(), KEYS[10]) then
    redis.call("ZADD", KEYS[2], "XX", now_ms(), id)
  elseif redis.call("ZSCORE", KEYS[2], id) then
    token = string.format("%d", redis.call("INCR", KEYS[5]))
    redis.call("HSET", KEYS[4], id, token)
    redis.call("ZREM", KEYS[2], id)
  end
  if token then
    local at = #answer
    answer[at + 1], answer[at + 2] = id, token
    answer[at + 3], answer[at + 4] = crashes_of(id, KEYS[7]), redis.call("HGET", KEYS[1], id)
  end
end
return answer
