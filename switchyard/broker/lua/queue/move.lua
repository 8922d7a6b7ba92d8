#!lua flags=allow-oom
-- move: put a leased message, with a new body, into a lane of its family: a retry, or a deferral.
-- KEYS[1] bodies: hash
-- KEYS[2] hold: hash
-- KEYS[3..5] waiting in the lane, by priority: lists
-- KEYS[6] due in the lane: sorted set
-- KEYS[7] bell of the lane: list
-- KEYS[8] notes: hash
-- KEYS[9..10] done: hashes
-- KEYS[11] ended: hash
-- KEYS[12] history: stream
-- ARGV[1] id
-- ARGV[2] token
-- ARGV[3] move: its name; a repeated move is recognised by name and token
-- ARGV[4] body
-- ARGV[5] delay_ms
-- ARGV[6] level: 1 high, 2 normal, 3 low priority
-- ARGV[7] rows of an attempt that is retried for the history, MessagePack array; "" for none
-- ARGV[8] bytes of the history
-- Returns 1 when it is there, also by an earlier call; 0 when the token is stale. O(log scheduled).
--@include now_ms
--@include put
--@include fair
--@include limits
--@include free_places
--@include finish
--@include held
--@include noted
--@include records

local id, token, move = ARGV[1], ARGV[2], ARGV[3]
local state = held(KEYS[2], KEYS[1], id, token, move, KEYS[8], KEYS[9], KEYS[10])
if state ~= "yes" then return state == "done" and 1 or 0 end
-- Written to the new place first, removed from the old one last: a key of a wrong type ends the script, nothing is lost.
redis.call("HSET", KEYS[1], id, ARGV[4])
redis.call("HSET", KEYS[8], "spent:" .. id, move .. " " .. token)
local level, delay_ms = tonumber(ARGV[6]), tonumber(ARGV[5])
if level == 2 then
  redis.call("HDEL", KEYS[8], "level:" .. id)
else
  redis.call("HSET", KEYS[8], "level:" .. id, level)
end
local history = history_of(id, KEYS[8])
if history.since then
  history.cause = "alone"
  note_history(id, KEYS[8], history)
end
put({ id }, level, delay_ms > 0 and now_ms() + delay_ms, { KEYS[3], KEYS[4], KEYS[5] }, KEYS[6], KEYS[7])
-- A key of the history that is of a wrong type costs the row: the message must not be in two places for it.
if ARGV[7] ~= "" then pcall(record_ended, KEYS[11], KEYS[12], {}, 0, 1, ARGV[7], { 0, 0, ARGV[8] }) end
redis.call("HDEL", KEYS[2], id)
free_places(KEYS[1], { id }, false)
return 1
