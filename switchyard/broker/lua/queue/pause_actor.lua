#!lua flags=allow-oom
-- pause_actor: lease no messages of an actor, or of one value of an argument of it, until it is resumed, or until a time.
-- KEYS[1] pauses of actors: hash
-- KEYS[2] token: string
-- ARGV[1] pause: its field
-- ARGV[2] until_ms: time at which it ends by itself, ms since the epoch; 0 for none
-- ARGV[3] "1" when there is a reason
-- ARGV[4] the pause as a JSON object, without its times and token
-- ARGV[5] most: pauses that a family has at most
-- A pause in force keeps its start and token; a call with until_ms or a reason replaces the rest, another changes nothing.
-- Messages with an older token were leased before it.
-- Returns 1, 2 when it was paused already and the rest is replaced, 0 when it stays as it was; -1 when until_ms is over by
-- the server's clock, -2 when there are too many: then it does nothing. O(1).
--@include now_ms

local now, until_ms = now_ms(), tonumber(ARGV[2])
if until_ms > 0 and until_ms <= now then return -1 end
local before = redis.call("HGET", KEYS[1], ARGV[1])
local since, ends, token = string.match(before or "", '^{"since":(%d+),"until":(%d+),"token":(%d+),')
if not since or (ends ~= "0" and tonumber(ends) <= now) then since = nil end
if since and until_ms == 0 and ARGV[3] == "" then return 0 end
if not before and redis.call("HLEN", KEYS[1]) >= tonumber(ARGV[5]) then return -2 end
if not since then token = string.match(redis.call("GET", KEYS[2]) or "", "^%d+$") or "0" end
local head = string.format('{"since":%s,"until":%d,"token":%s,', since or string.format("%d", now), until_ms, token)
redis.call("HSET", KEYS[1], ARGV[1], head .. string.sub(ARGV[4], 2))
return since and 2 or 1
