#!lua flags=allow-oom
-- take_back: put messages that a requeue moved, and no worker has fetched since, back into the dead list.
-- KEYS[1] bodies: hash
-- KEYS[2..4] waiting in the live lane, by priority: lists
-- KEYS[5] due in the live lane: sorted set
-- KEYS[6] notes: hash
-- KEYS[7] unique: hash
-- KEYS[8] dead: list
-- KEYS[9] dead letters: hash
-- ARGV[1] requeue: its name and nonce, as it noted them; every later move of the message notes another one
-- ARGV[2] depth: ids of a list that are compared, from its tail
-- ARGV[3...] id, body as it was read, dead letter: at most 50
-- Its unique key is free again. Returns for each 1 when it is in the dead list now, 0 when it stays: it was fetched, has
-- moved or crashed, or lies deeper. O(ids · depth).

local answers = {}
for i = 3, #ARGV, 3 do
  local id, found = ARGV[i], false
  local spent, crash, key = unpack(redis.call("HMGET", KEYS[6], "spent:" .. id, "crash:" .. id, "key:" .. id))
  if spent == ARGV[1] and not crash and redis.call("HGET", KEYS[1], id) == ARGV[i + 1] then
    local list
    found = redis.call("ZSCORE", KEYS[5], id)
    for n = 2, 4 do
      if not found and redis.call("LPOS", KEYS[n], id, "RANK", -1, "MAXLEN", ARGV[2]) then list, found = KEYS[n], true end
    end
    if found then
      -- Written to the new place first, removed from the old one last: a key of a wrong type ends the script.
      redis.call("HSET", KEYS[9], id, ARGV[i + 2])
      redis.call("RPUSH", KEYS[8], id)
      if key and redis.call("HGET", KEYS[7], key) == id then redis.call("HDEL", KEYS[7], key) end
      redis.call("HDEL", KEYS[6], "spent:" .. id, "key:" .. id, "level:" .. id, "cancel:" .. id, "asked:" .. id)
      if list then redis.call("LREM", list, -1, id) else redis.call("ZREM", KEYS[5], id) end
      redis.call("HDEL", KEYS[1], id)
    end
  end
  answers[#answers + 1] = found and 1 or 0
end
return answers
