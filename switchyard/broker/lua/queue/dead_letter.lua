#!lua flags=allow-oom
-- dead_letter: move a leased message to the dead list.
-- KEYS[1] bodies: hash
-- KEYS[2] hold: hash
-- KEYS[3] dead: list
-- KEYS[4] dead letters: hash
-- KEYS[5] notes: hash
-- KEYS[6] unique: hash
-- KEYS[7..8] done: hashes
-- KEYS[9] ended: hash
-- KEYS[10] history: stream
-- ARGV[1] id
-- ARGV[2] token
-- ARGV[3] dead letter, JSON
-- ARGV[4] rows of the ended attempt for the history, MessagePack array; "" for none
-- ARGV[5] bytes of the history
-- Its unique key is free again. Returns 1 when it is in the dead list, also by an earlier call; 0 when the token is stale. O(1).
--@include now_ms
--@include fair
--@include limits
--@include free_places
--@include finish
--@include held
--@include records

local id, token = ARGV[1], ARGV[2]
local state = held(KEYS[2], KEYS[1], id, token, "dead_letter", KEYS[5], KEYS[7], KEYS[8])
if state ~= "yes" then return state == "done" and 1 or 0 end
-- Written to the new place first, removed from the old one last: a key of a wrong type ends the script, nothing is lost.
redis.call("HSET", KEYS[4], id, ARGV[3])
redis.call("RPUSH", KEYS[3], id)
local key = redis.call("HGET", KEYS[5], "key:" .. id)
if key and redis.call("HGET", KEYS[6], key) == id then redis.call("HDEL", KEYS[6], key) end
redis.call("HDEL", KEYS[5], "key:" .. id, "crash:" .. id, "cancel:" .. id, "asked:" .. id)
redis.call("HSET", KEYS[5], "spent:" .. id, "dead_letter " .. token)
-- A key of the history that is of a wrong type costs the row: the message must not be in two places for it.
if ARGV[4] ~= "" then pcall(record_ended, KEYS[9], KEYS[10], {}, 0, 1, ARGV[4], { 0, 0, ARGV[5] }) end
note_end(id, "failed", string.sub(KEYS[1], 1, -7) .. "ends")
redis.call("HDEL", KEYS[2], id)
redis.call("HDEL", KEYS[1], id)
free_places(KEYS[1], { id }, true)
return 1
