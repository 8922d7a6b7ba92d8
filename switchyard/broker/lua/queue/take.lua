#!lua flags=allow-oom
-- take: lease the next waiting messages in order to move them, also while the family is paused.
-- KEYS[1] bodies: hash
-- KEYS[2] waiting, of one priority: list
-- KEYS[3] leases: sorted set
-- KEYS[4] hold: hash
-- KEYS[5] token: string
-- KEYS[6] notes: hash
-- ARGV[1] owner
-- ARGV[2] count: at most 500
-- A repeated call leases other messages; the first ones are reclaimed when the owner's lease expires.
-- Returns {id, token, body, unique key, note of crashes, "1" when its cancellation was requested, …}, with "" for what a
-- message has not; or "gone" when the owner has no lease. The body of a cancelled message is nil: it stays in the family
-- that knows of its cancellation. O(messages).

local lease = redis.call("ZSCORE", KEYS[3], ARGV[1])
if not lease or tonumber(lease) == 0 then return "gone" end
local ids = redis.call("LPOP", KEYS[2], ARGV[2])
if not ids then return {} end
local last = redis.call("INCRBY", KEYS[5], #ids)
local bodies = redis.call("HMGET", KEYS[1], unpack(ids))
local noted = redis.call("EXISTS", KEYS[6]) == 1
local answer, leased = {}, {}
for n, id in ipairs(ids) do
  local key, crashes, asked, cancelled
  if noted then
    key, crashes, asked, cancelled =
      unpack(redis.call("HMGET", KEYS[6], "key:" .. id, "crash:" .. id, "asked:" .. id, "cancel:" .. id))
  end
  if cancelled then bodies[n] = false end
  local token = string.format("%d", last - #ids + n)
  leased[2 * n - 1], leased[2 * n] = id, token
  local at = #answer
  answer[at + 1], answer[at + 2], answer[at + 3] = id, token, bodies[n]
  answer[at + 4], answer[at + 5], answer[at + 6] = key or "", crashes or "", asked and "1" or ""
end
redis.call("HSET", KEYS[4], unpack(leased))
return answer
