#!lua flags=allow-oom
-- unquarantine: move a quarantined message back to the lane it was in, or drop it for good.
-- KEYS[1] quarantine: list
-- KEYS[2] quarantined bodies: hash
-- KEYS[3] bodies: hash
-- KEYS[4..6] waiting in the lane, by priority: lists
-- KEYS[7] bell of the lane: list
-- KEYS[8] notes: hash
-- KEYS[9..10] done: hashes
-- KEYS[11] due in the lane: sorted set
-- ARGV[1] id of the entry, which is the message's unless that is invalid
-- ARGV[2] entry as it was read, JSON
-- ARGV[3] nonce: a call repeated with it gets the same answer
-- ARGV[4] body; "" to drop the message
-- ARGV[5] level: 1 high, 2 normal, 3 low priority
-- ARGV[6] limit: messages the lane may hold, waiting and scheduled; 0 for any number
-- Returns 1 when it was moved or dropped, also by an earlier call; 0 when there is no such entry, or the id is in the
-- queue already; the negative depth of a full lane. O(quarantined) for the list.
--@include now_ms
--@include finish
--@include held
--@include put

local id, word = ARGV[1], "unquarantine " .. ARGV[3]
if redis.call("HGET", KEYS[8], "spent:" .. id) == word then return 1 end
local at = redis.call("LPOS", KEYS[1], ARGV[2])
if not at then return repeated(id, word, KEYS[8], KEYS[9], KEYS[10]) and 1 or 0 end
if ARGV[4] ~= "" then
  if redis.call("HEXISTS", KEYS[3], id) == 1 then return 0 end
  local level, limit = tonumber(ARGV[5]), tonumber(ARGV[6])
  if limit > 0 then
    local depth = redis.call("ZCARD", KEYS[11])
    for n = 4, 6 do depth = depth + redis.call("LLEN", KEYS[n]) end
    if depth >= limit then return -depth end
  end
  redis.call("HSET", KEYS[3], id, ARGV[4])
  redis.call("HSET", KEYS[8], "spent:" .. id, word)
  redis.call("HDEL", KEYS[9], id)
  redis.call("HDEL", KEYS[10], id)
  if level ~= 2 then redis.call("HSET", KEYS[8], "level:" .. id, level) end
  put({ id }, level, false, { KEYS[4], KEYS[5], KEYS[6] }, nil, KEYS[7])
end
redis.call("LREM", KEYS[1], 1, ARGV[2])
redis.call("HDEL", KEYS[2], id)
return 1
