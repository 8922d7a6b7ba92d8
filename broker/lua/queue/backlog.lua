#!lua flags=allow-oom
-- backlog: count the waiting messages of a queue's lanes, for a supervisor.
-- KEYS[1..3] waiting in the live lane, by priority: lists
-- KEYS[4..6] waiting in the retry lane: lists
-- KEYS[7..9] waiting in the isolated lane: lists
-- KEYS[10] due in that lane: sorted set
-- KEYS[11] paused: string
-- ARGV[1] soon_ms: a message of the isolated lane that is due within this time counts as waiting
-- Returns {live, retry, alone, paused}. O(log N).
--@include now_ms

local function waiting(first)
  local count = 0
  for i = first, first + 2 do count = count + redis.call("LLEN", KEYS[i]) end
  return count
end

local soon = redis.call("ZCOUNT", KEYS[10], "-inf", now_ms() + tonumber(ARGV[1]))
return { waiting(1), waiting(4), waiting(7) + soon, redis.call("EXISTS", KEYS[11]) }
