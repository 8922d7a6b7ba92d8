#!lua flags=allow-oom
-- history_remove: remove entries of the history's stream whose rows are in the database.
-- KEYS[1] history: stream
-- KEYS[2] ended: hash
-- ARGV[1...] id, bytes of its rows, number of its rows, …; ascending, also from call to call
-- An entry that the budget has removed while its rows were written was counted as dropped, and is counted as dropped no more.
-- Returns how many were there; repeated, it changes nothing more. O(entries).

local function parts(id)
  local ms, sequence = string.match(id, "^(%d+)-(%d+)$")
  return tonumber(ms), tonumber(sequence)
end

local known = redis.call("HMGET", KEYS[2], "removed_ms", "removed_sequence")
local last_ms, last_sequence = tonumber(known[1] or 0), tonumber(known[2] or 0)
local removed, bytes, saved, last = 0, 0, 0, nil
for n = 1, #ARGV, 3 do
  local ms, sequence = parts(ARGV[n])
  local first_time = ms > last_ms or (ms == last_ms and sequence > last_sequence)
  if first_time then last = ARGV[n] end
  if redis.call("XDEL", KEYS[1], ARGV[n]) == 1 then
    removed = removed + 1
    bytes = bytes + tonumber(ARGV[n + 1]) + 64
  elseif first_time then
    saved = saved + tonumber(ARGV[n + 2])
  end
end
if last then
  local ms, sequence = string.match(last, "^(%d+)-(%d+)$")
  redis.call("HSET", KEYS[2], "removed_ms", ms, "removed_sequence", sequence)
end
if bytes > 0 and redis.call("HINCRBY", KEYS[2], "history", -bytes) < 0 then redis.call("HSET", KEYS[2], "history", 0) end
if saved > 0 and redis.call("HINCRBY", KEYS[2], "dropped", -saved) < 0 then redis.call("HSET", KEYS[2], "dropped", 0) end
return removed
