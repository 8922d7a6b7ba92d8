#!lua flags=allow-oom
-- isolate: move a leased message to the isolated lane. The record of its crashes stays.
-- KEYS[1] hold: hash
-- KEYS[2..4] waiting in that lane, by priority: lists
-- KEYS[5] bell of that lane: list
-- KEYS[6] notes: hash
-- KEYS[7..8] done: hashes
-- KEYS[9] bodies: hash
-- ARGV[1] id
-- ARGV[2] token
-- Returns 1 when it is there, also by an earlier call; 0 when the token is stale. O(1).
--@include now_ms
--@include put
--@include fair
--@include limits
--@include free_places
--@include finish
--@include held
--@include noted

local id, token = ARGV[1], ARGV[2]
local state = held(KEYS[1], KEYS[9], id, token, "isolate", KEYS[6], KEYS[7], KEYS[8])
if state ~= "yes" then return state == "done" and 1 or 0 end
redis.call("HDEL", KEYS[1], id)
redis.call("HSET", KEYS[6], "spent:" .. id, "isolate " .. token)
redis.call("RPUSH", KEYS[1 + level_of(id, KEYS[6])], id)
notify(KEYS[5])
free_places(KEYS[9], { id }, false)
return 1
