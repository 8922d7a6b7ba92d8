#!lua flags=allow-oom
-- requeue: make a dead letter a waiting message again.
-- KEYS[1] letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..6] waiting in the live lane, by priority: lists
-- KEYS[7] bell of the live lane: list
-- KEYS[8] notes: hash
-- KEYS[9..10] done: hashes
-- ARGV[1] id
-- ARGV[2] letter as it was read, JSON; another one stays
-- ARGV[3] body
-- ARGV[4] level: 1 high, 2 normal, 3 low priority
-- ARGV[5] nonce: the same one is answered the same again
-- Returns 1 when it waits, also by an earlier call; 0 when there is no such letter. O(letters) for the list.
--@include now_ms
--@include finish
--@include held
--@include put

local id = ARGV[1]
local letter = redis.call("HGET", KEYS[1], id)
if letter ~= ARGV[2] then return repeated(id, "requeue " .. ARGV[5], KEYS[8], KEYS[9], KEYS[10]) and 1 or 0 end
-- Put there first, taken away last: should a key be of a wrong type, the script ends there and nothing is lost.
redis.call("HSET", KEYS[3], id, ARGV[3])
redis.call("HDEL", KEYS[8], "crash:" .. id, "cancel:" .. id, "asked:" .. id, "level:" .. id)
redis.call("HSET", KEYS[8], "spent:" .. id, "requeue " .. ARGV[5])
local level = tonumber(ARGV[4])
if level ~= 2 then redis.call("HSET", KEYS[8], "level:" .. id, level) end
put({ id }, level, false, { KEYS[4], KEYS[5], KEYS[6] }, nil, KEYS[7])
redis.call("HDEL", KEYS[1], id)
redis.call("LREM", KEYS[2], -1, id)
return 1
