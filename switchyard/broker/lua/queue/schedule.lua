#!lua flags=allow-oom
-- schedule: put a leased message into the scheduled ones of its lane, without counting an attempt or a crash.
-- KEYS[1] bodies: hash
-- KEYS[2] hold: hash
-- KEYS[3] due in the lane: sorted set
-- KEYS[4] bell of the lane: list
-- KEYS[5] notes: hash
-- KEYS[6..7] done: hashes
-- ARGV[1] id
-- ARGV[2] token
-- ARGV[3] body
-- ARGV[4] due_at, ms since the epoch
-- Returns milliseconds until it is due, 1 when an earlier call scheduled it; 0 when it is due, and leased as before; -1
-- when the token is stale. O(log scheduled).
--@include now_ms
--@include put
--@include fair
--@include limits
--@include free_places
--@include finish
--@include held

local id, token, due_at = ARGV[1], ARGV[2], tonumber(ARGV[4])
local state = held(KEYS[2], KEYS[1], id, token, "schedule", KEYS[5], KEYS[6], KEYS[7])
if state ~= "yes" then return state == "done" and 1 or -1 end
local delay_ms = due_at - now_ms()
if delay_ms <= 0 then return 0 end
-- Written to the new place first, removed from the old one last: a key of a wrong type ends the script, nothing is lost.
redis.call("HSET", KEYS[1], id, ARGV[3])
redis.call("HSET", KEYS[5], "spent:" .. id, "schedule " .. token)
put({ id }, 2, due_at, nil, KEYS[3], KEYS[4])
redis.call("HDEL", KEYS[2], id)
free_places(KEYS[1], { id }, false)
return delay_ms
