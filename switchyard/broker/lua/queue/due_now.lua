#!lua flags=allow-oom
-- due_now: make a scheduled message due at once, in the lane that it is scheduled in.
-- KEYS[1] bodies: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..7] bells of these lanes: lists
-- ARGV[1] id
-- ARGV[2] body as it was read
-- ARGV[3] body with its new due time
-- The next fetch of the lane promotes it by its priority, as every due message. A paused family keeps it scheduled.
-- Returns 1 when it is due, also by an earlier call; 0 when it waits, also for a limit or in a tenant's line, where it keeps
-- its turn, or is leased; -1 when it is not here; -2 when its body is another one by now: read it again. O(log scheduled).
--@include now_ms
--@include put
--@include actor_pauses

local id = ARGV[1]
local body = redis.call("HGET", KEYS[1], id)
if not body then return -1 end
for n = 2, 4 do
  local due_at = redis.call("ZSCORE", KEYS[n], id)
  if due_at then
    local now = now_ms()
    if tonumber(due_at) <= now then return 1 end
    if tonumber(due_at) >= LIMITS and tonumber(due_at) < LAST_PUT_OFF then return 0 end
    if body ~= ARGV[2] then return -2 end
    redis.call("HSET", KEYS[1], id, ARGV[3])
    redis.call("ZADD", KEYS[n], "XX", now, id)
    notify(KEYS[n + 3])
    return 1
  end
end
return 0
