#!lua flags=allow-oom
-- declare_limits: write the limits of actors, and make due what waits for a limit in a lane, so that the new ones count.
-- KEYS[1] limits: hash
-- KEYS[2] due in the lane: sorted set
-- KEYS[3] bell of the lane: list
-- ARGV[1] count: messages that are made due in one call
-- ARGV[2] after: answer of the call before, "-inf" for the first one
-- ARGV[3...] actor, its limits as a JSON list, "" for none
-- A message that is made due keeps its turn. A caller that is interrupted leaves the rest waiting: free places go to it by
-- the next check of the places, see lapsed.
-- Returns where the next call begins, "" when none is needed. O(count · log scheduled).
--@include put
--@include actor_pauses

for n = 3, #ARGV, 2 do
  if ARGV[n + 1] == "" then
    redis.call("HDEL", KEYS[1], ARGV[n])
  else
    redis.call("HSET", KEYS[1], ARGV[n], ARGV[n + 1])
  end
end
local after = ARGV[2] == "-inf" and string.format("%d", LIMITS) or "(" .. ARGV[2]
local found = redis.call("ZRANGEBYSCORE", KEYS[2], after, string.format("(%d", LINES), "WITHSCORES", "LIMIT", 0, ARGV[1])
if #found == 0 then return "" end
local scored = {}
for i = 1, #found, 2 do
  scored[i], scored[i + 1] = math.max((tonumber(found[i + 1]) - LIMITS) % (3 * 10 ^ 12), 1), found[i]
end
redis.call("ZADD", KEYS[2], unpack(scored))
notify(KEYS[3])
return found[#found]
