#!lua
-- unique_claim: claim a unique key for a message, unless another message holds it that the caller has not judged.
-- KEYS[1] claim: string, id of the holder and when it was sent
-- ARGV[1] claim of the message
-- ARGV[2] ttl_ms
-- ARGV[3] claim that was read before and may be replaced, "" for none
-- Returns "" when the message holds the key now, else the claim that is there. O(1).

local held = redis.call("GET", KEYS[1])
if held and held ~= ARGV[3] then return held end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return ""
