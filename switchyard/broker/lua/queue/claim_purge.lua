#!lua flags=allow-oom
-- claim_purge: decide whether a purge is undone or done. The first claim decides, and stays.
-- KEYS[1] purges: hash
-- ARGV[1] purge
-- ARGV[2] claim: "undo", or "drop", which is refused until the time for undoing is over
-- Returns 1 when that is decided, also by an earlier call; -1 when it is too early, or the other is decided; 0 when there
-- is no such purge, or it is over. O(1).
--@include now_ms

local facts = redis.call("HGET", KEYS[1], ARGV[1])
if not facts then return 0 end
local field = ARGV[1] .. ":claim"
local claim = redis.call("HGET", KEYS[1], field)
if claim then return claim == ARGV[2] and 1 or -1 end
if ARGV[2] == "drop" and now_ms() < cjson.decode(facts)["until"] then return -1 end
redis.call("HSET", KEYS[1], field, ARGV[2])
return 1
