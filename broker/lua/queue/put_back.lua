#!lua flags=allow-oom
-- put_back: put messages that a purge set aside back into a lane, at its tail, in their order.
-- KEYS[1..3] bodies, notes, unique: hashes
-- KEYS[4..6] waiting in the lane, by priority: lists
-- KEYS[7] due in the lane: sorted set
-- KEYS[8] bell of the lane: list
-- KEYS[9] purges: hash
-- KEYS[10..12] bodies, notes, unique of what is set aside: hashes
-- KEYS[13..15] waiting, set aside: lists
-- KEYS[16] due, set aside: sorted set
-- ARGV[1] purge: its claim is "undo"
-- ARGV[2] count: at most 500
-- A message whose id was enqueued again meanwhile is left out; one whose unique key another holds meanwhile is put
-- without the key: both were accepted.
-- Returns {taken, put, left}: messages taken from what is set aside, put into the lane, and left aside for it.
-- O(count · log scheduled).
--@include now_ms
--@include put

if redis.call("HGET", KEYS[9], ARGV[1] .. ":claim") ~= "undo" then return { 0, 0, 0 } end
local wanted, taken, placed = tonumber(ARGV[2]), 0, 0

-- Ids that are to be put, of those given, with body, notes and unique key there.
local function moved(ids)
  local bodies, there = redis.call("HMGET", KEYS[10], unpack(ids)), redis.call("HMGET", KEYS[1], unpack(ids))
  local noted = redis.call("EXISTS", KEYS[11]) == 1
  local going = {}
  for n, id in ipairs(ids) do
    if bodies[n] and not there[n] then
      redis.call("HSET", KEYS[1], id, bodies[n])
      going[#going + 1] = id
      if noted then
        local names = { "level:" .. id, "crash:" .. id, "spent:" .. id, "cancel:" .. id, "asked:" .. id, "key:" .. id }
        for k, note in ipairs(redis.call("HMGET", KEYS[11], unpack(names))) do
          if note and (k < 6 or redis.call("HSETNX", KEYS[3], note, id) == 1) then
            redis.call("HSET", KEYS[2], names[k], note)
          end
        end
      end
    end
  end
  return going
end

for level = 1, 3 do
  local ids = taken < wanted and redis.call("LRANGE", KEYS[12 + level], 0, wanted - taken - 1) or {}
  if #ids > 0 then
    local going = moved(ids)
    put(going, level, false, { KEYS[4], KEYS[5], KEYS[6] }, nil, KEYS[8])
    redis.call("LTRIM", KEYS[12 + level], #ids, -1)
    redis.call("HDEL", KEYS[10], unpack(ids))
    taken, placed = taken + #ids, placed + #going
  end
end
local due = taken < wanted and redis.call("ZRANGE", KEYS[16], 0, wanted - taken - 1, "WITHSCORES") or {}
if #due > 0 then
  local ids, score = {}, {}
  for n = 1, #due, 2 do
    ids[#ids + 1], score[due[n]] = due[n], due[n + 1]
  end
  local going = moved(ids)
  for _, id in ipairs(going) do put({ id }, 2, tonumber(score[id]), nil, KEYS[7], KEYS[8]) end
  redis.call("ZREM", KEYS[16], unpack(ids))
  redis.call("HDEL", KEYS[10], unpack(ids))
  taken, placed = taken + #ids, placed + #going
end
local left = redis.call("ZCARD", KEYS[16])
for n = 13, 15 do left = left + redis.call("LLEN", KEYS[n]) end
return { taken, placed, left }
