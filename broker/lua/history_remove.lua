#!lua flags=allow-oom
-- history_remove: remove entries of the history's stream whose rows are in the database.
-- KEYS[1] history: stream
-- KEYS[2] ended: hash
-- ARGV[1...] id, bytes of its rows, …
-- Returns how many were there; repeated, it changes nothing more. O(entries).

local removed, bytes = 0, 0
for n = 1, #ARGV, 2 do
  if redis.call("XDEL", KEYS[1], ARGV[n]) == 1 then
    removed = removed + 1
    bytes = bytes + tonumber(ARGV[n + 1]) + 64
  end
end
if bytes > 0 and redis.call("HINCRBY", KEYS[2], "history", -bytes) < 0 then redis.call("HSET", KEYS[2], "history", 0) end
return removed
