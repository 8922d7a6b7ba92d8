#!lua flags=allow-oom
-- quarantine: move a leased message that cannot be decoded to the quarantine.
-- KEYS[1] hold: hash
-- KEYS[2] bodies: hash
-- KEYS[3] quarantine: list
-- KEYS[4..5] done: hashes
-- KEYS[6] notes: hash
-- KEYS[7] unique: hash
-- KEYS[8] quarantined bodies: hash
-- ARGV[1] id
-- ARGV[2] token
-- ARGV[3] entry, JSON: first bytes and error
-- ARGV[4] body, kept whole for a requeue; "" to keep none
-- ARGV[5] id of the entry; "" where it is the message's
-- Returns 1 when it is in the quarantine, also by an earlier call; 0 when the token is stale. O(1).
--@include now_ms
--@include fair
--@include limits
--@include finish
--@include held

local id, token = ARGV[1], ARGV[2]
local word = "quarantine " .. token
local state = held(KEYS[1], KEYS[2], id, token, "quarantine", KEYS[6], KEYS[4], KEYS[5])
if state ~= "yes" then return state == "done" and 1 or 0 end
redis.call("LPUSH", KEYS[3], ARGV[3])
if ARGV[4] ~= "" then redis.call("HSET", KEYS[8], ARGV[5] ~= "" and ARGV[5] or id, ARGV[4]) end
finish({ id }, { word }, KEYS[1], KEYS[2], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
return 1
