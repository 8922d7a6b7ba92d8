#!lua flags=allow-oom
-- backlog: count the waiting messages of a queue's lanes, for a supervisor.
-- KEYS[1..3] waiting in the live lane, by priority: lists
-- KEYS[4..6] waiting in the retry lane: lists
-- KEYS[7..9] waiting in the isolated lane: lists
-- KEYS[10] due in that lane: sorted set
-- KEYS[11] paused: string
-- KEYS[12] notes: hash
-- KEYS[13] running: hash
-- ARGV[1] soon_ms: a message of the isolated lane that is due within this time counts as waiting
-- ARGV[2] shown: messages of each list of the isolated lane that are read, to find lapse suspects
-- Returns {live, retry, alone, paused, suspects, quiet}: lapse suspects among the next isolated ones, and, where there
-- are some, the owners that run such ones alone. O(log N + shown + owners).
--@include now_ms
--@include noted

local function waiting(first)
  local count = 0
  for i = first, first + 2 do count = count + redis.call("LLEN", KEYS[i]) end
  return count
end

local until_ms = now_ms() + tonumber(ARGV[1])
local soon = redis.call("ZCOUNT", KEYS[10], "-inf", until_ms)
local alone, suspects, quiet = waiting(7) + soon, 0, 0
if alone > 0 then
  local lists = { redis.call("ZRANGEBYSCORE", KEYS[10], "-inf", until_ms, "LIMIT", 0, ARGV[2]) }
  for i = 7, 9 do lists[#lists + 1] = redis.call("LRANGE", KEYS[i], 0, ARGV[2] - 1) end
  for _, ids in ipairs(lists) do
    for _, id in ipairs(ids) do
      if history_of(id, KEYS[12]).lapses then suspects = suspects + 1 end
    end
  end
end
if suspects > 0 then
  for _, work in ipairs(redis.call("HVALS", KEYS[13])) do
    if string.match(work, "^%d+ 1 ") then quiet = quiet + 1 end
  end
end
local in_line = redis.call("ZCARD", string.sub(KEYS[2], 1, -1) .. ".lines")
return { waiting(1) + in_line, waiting(4), alone, redis.call("EXISTS", KEYS[11]), suspects, quiet }
