#!lua flags=allow-oom
-- release: return leased messages to their lane, without counting an attempt or a crash.
-- KEYS[1] hold: hash
-- KEYS[2..4] waiting, by priority: lists
-- KEYS[5] bell: list
-- KEYS[6] notes: hash
-- KEYS[7..8] done: hashes
-- KEYS[9] bodies: hash
-- ARGV[1] side: "head" to be the next ones, in the order given, or "tail"
-- ARGV[2...] id, token, at most 500 pairs
-- Returns the positions (1 …) of pairs whose token is stale; they change nothing. O(messages).
--@include now_ms
--@include put
--@include fair
--@include limits
--@include free_places
--@include finish
--@include held
--@include noted

local head = ARGV[1] == "head"
local others, stale, freed = {}, {}, {}
local first, last, step = 2, #ARGV - 1, 2
if head then first, last, step = #ARGV - 1, 2, -2 end
for i = first, last, step do
  local id, token = ARGV[i], ARGV[i + 1]
  if holds(KEYS[1], KEYS[9], id, token, KEYS[7], KEYS[8]) then
    redis.call(head and "LPUSH" or "RPUSH", KEYS[1 + level_of(id, KEYS[6])], id)
    redis.call("HSET", KEYS[6], "spent:" .. id, "release " .. token)
    redis.call("HDEL", KEYS[1], id)
    notify(KEYS[5])
    freed[#freed + 1] = id
  else
    others[#others + 1] = i
  end
end
free_places(KEYS[9], freed, false)
-- Checked after all moves: else a repeated call with an id under an old and a new token would get another answer.
for _, i in ipairs(others) do
  if not repeated(ARGV[i], "release " .. ARGV[i + 1], KEYS[6], KEYS[7], KEYS[8]) then stale[#stale + 1] = i / 2 end
end
return stale
