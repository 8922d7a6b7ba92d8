#!lua flags=allow-oom
-- key_counts: count the messages of a limit's keys, or of a fair lane's tenants: of a page by name, and of the largest.
-- KEYS[1] turns, or lines of a fair lane: sorted set
-- KEYS[2] waits: hash
-- KEYS[3] bodies: hash
-- ARGV[1..2] first, last: range of its members, as ZRANGEBYLEX takes it
-- ARGV[3] from: where the page begins, as first
-- ARGV[4] count: keys of the page
-- ARGV[5] samples: members, evenly spaced in the range, whose keys are the largest: one with more than 1 / samples of the
--   members is found; 0 for none
-- Reads only. Returns {number of keys of the page, members of the range, then for each of these keys, and for each of the
-- largest, {key, members with a place, members that wait, id of the next of these, since when it waits (ms since the
-- epoch)}}; the last two may be "".
-- O((count + samples) · log members).
--@include since_of

local all = redis.call("ZLEXCOUNT", KEYS[1], ARGV[1], ARGV[2])
local answer = { 0, all }
local function first(from, to) return redis.call("ZRANGEBYLEX", KEYS[1], from, to, "LIMIT", 0, 1)[1] end
local function key_of(member) return member and string.match(member, "^([^\n]*)\n") end
local function add(key)
  local held = redis.call("ZLEXCOUNT", KEYS[1], "[" .. key .. "\nh", "(" .. key .. "\ni")
  -- In a line a digit stands where "w" does in a limit's members.
  local next = first("[" .. key .. "\n0", "(" .. key .. "\nh") or first("[" .. key .. "\ni", "(" .. key .. "\11")
  local both = redis.call("ZLEXCOUNT", KEYS[1], "[" .. key .. "\n", "(" .. key .. "\11")
  local id = next and string.match(next, "\n([^\n]*)$") or ""
  answer[#answer + 1] = { key, held, both - held, id, id == "" and "" or since_of(KEYS[2], KEYS[3], id) }
end

local key = key_of(first(ARGV[3], ARGV[2]))
while key and answer[1] < tonumber(ARGV[4]) do
  add(key)
  answer[1] = answer[1] + 1
  key = key_of(first("(" .. key .. "\nx", ARGV[2]))
end
local samples, seen = math.min(tonumber(ARGV[5]), all), {}
local rank = samples > 0 and redis.call("ZRANK", KEYS[1], first(ARGV[1], ARGV[2]))
for n = 0, samples - 1 do
  local at = rank + math.floor(n * all / samples)
  local sample = key_of(redis.call("ZRANGE", KEYS[1], at, at)[1])
  if sample and not seen[sample] then
    seen[sample] = true
    add(sample)
  end
end
return answer
