#!lua flags=allow-oom
-- forget: drop leased messages that were moved to another family, without recording them as finished.
-- KEYS[1] hold: hash
-- KEYS[2] bodies: hash
-- KEYS[3] notes: hash
-- KEYS[4] unique: hash
-- ARGV[1...] id, token, at most 500 pairs
-- They may be enqueued here again. A pair whose token is stale, or that is repeated, changes nothing.
-- Returns how many were dropped. O(messages).

local dropped = 0
for i = 1, #ARGV, 2 do
  local id = ARGV[i]
  if redis.call("HGET", KEYS[1], id) == ARGV[i + 1] then
    redis.call("HDEL", KEYS[1], id)
    redis.call("HDEL", KEYS[2], id)
    local key = redis.call("HGET", KEYS[3], "key:" .. id)
    if key and redis.call("HGET", KEYS[4], key) == id then redis.call("HDEL", KEYS[4], key) end
    redis.call("HDEL", KEYS[3], "key:" .. id, "level:" .. id, "crash:" .. id, "spent:" .. id, "asked:" .. id, "cancel:" .. id)
    dropped = dropped + 1
  end
end
return dropped
