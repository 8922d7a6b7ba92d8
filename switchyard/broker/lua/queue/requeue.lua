#!lua flags=allow-oom
-- requeue: move a dead letter back to its live lane.
-- KEYS[1] dead letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..6] waiting in the live lane, by priority: lists
-- KEYS[7] bell of the live lane: list
-- KEYS[8] notes: hash
-- KEYS[9..10] done: hashes
-- KEYS[11] due in the live lane: sorted set
-- ARGV[1] id
-- ARGV[2] dead letter as it was read, JSON; one with other content stays
-- ARGV[3] body
-- ARGV[4] level: 1 high, 2 normal, 3 low priority
-- ARGV[5] nonce: a call repeated with it gets the same answer
-- ARGV[6] limit: messages the lane may hold, waiting and scheduled; 0 for any number
-- Returns 1 when it waits, also by an earlier call; 0 when there is no such dead letter; the negative depth of a full lane. O(dead letters) for the list.
--@include now_ms
--@include finish
--@include held
--@include put

local id = ARGV[1]
local letter = redis.call("HGET", KEYS[1], id)
if letter ~= ARGV[2] then return repeated(id, "requeue " .. ARGV[5], KEYS[8], KEYS[9], KEYS[10]) and 1 or 0 end
local limit = tonumber(ARGV[6])
if limit > 0 then
  local depth = redis.call("ZCARD", KEYS[11])
  for n = 4, 6 do depth = depth + redis.call("LLEN", KEYS[n]) end
  if depth >= limit then return -depth end
end
-- Written to the new place first, removed from the old one last: a key of a wrong type ends the script, nothing is lost.
redis.call("HSET", KEYS[3], id, ARGV[3])
redis.call("HDEL", KEYS[8], "crash:" .. id, "cancel:" .. id, "asked:" .. id, "level:" .. id)
redis.call("HSET", KEYS[8], "spent:" .. id, "requeue " .. ARGV[5])
local level = tonumber(ARGV[4])
if level ~= 2 then redis.call("HSET", KEYS[8], "level:" .. id, level) end
put({ id }, level, false, { KEYS[4], KEYS[5], KEYS[6] }, nil, KEYS[7])
redis.call("HDEL", KEYS[1], id)
redis.call("LREM", KEYS[2], -1, id)
return 1
