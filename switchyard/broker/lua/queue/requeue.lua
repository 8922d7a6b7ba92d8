#!lua flags=allow-oom
-- requeue: move dead letters back to their live lane, each once, however often the call is repeated.
-- KEYS[1] dead letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..6] waiting in the live lane, by priority: lists
-- KEYS[7] bell of the live lane: list
-- KEYS[8] notes: hash
-- KEYS[9..10] done: hashes
-- KEYS[11] due in the live lane: sorted set
-- ARGV[1] nonce: an id that was requeued with it before gets the same answer
-- ARGV[2] from: where in the dead list the first id probably is
-- ARGV[3] limit: messages the lane may hold, waiting and scheduled; 0 for any number
-- ARGV[4...] id, dead letter as it was read, body, level: at most 500; a letter with other content stays
-- Returns the place for the next call, and for each id 1 when it waits, also by an earlier call, 0 when there is no such
-- dead letter, -1 when it is to be asked for again: it lies far from the others; -2 when the lane is full. O(ids), O(dead letters) for the list.
--@include now_ms
--@include finish
--@include held
--@include put
--@include dead_list

local spent = "requeue " .. ARGV[1]
local ids, answers, at_of = {}, {}, {}
for i = 4, #ARGV, 4 do
  local id = ARGV[i]
  answers[#answers + 1] = 0
  if redis.call("HGET", KEYS[1], id) == ARGV[i + 1] then
    ids[#ids + 1], at_of[id] = id, #answers
  elseif repeated(id, spent, KEYS[8], KEYS[9], KEYS[10]) then
    answers[#answers] = 1
  end
end
if #ids == 0 then return { tonumber(ARGV[2]), unpack(answers) } end

local place, later = places_of(ids, KEYS[2], tonumber(ARGV[2]))
local room, limit = #ids, tonumber(ARGV[3])
if limit > 0 then
  room = limit - redis.call("ZCARD", KEYS[11])
  for n = 4, 6 do room = room - redis.call("LLEN", KEYS[n]) end
end
local moved, bodies, words, old, levels = {}, {}, {}, {}, { {}, {}, {} }
for _, id in ipairs(ids) do
  local at = at_of[id]
  answers[at] = later[id] and -1 or #moved >= room and -2 or 1
  if answers[at] == 1 then
    moved[#moved + 1] = id
    bodies[#bodies + 1], bodies[#bodies + 2] = id, ARGV[4 * at + 2]
    words[#words + 1], words[#words + 2] = "spent:" .. id, spent
    local level = tonumber(ARGV[4 * at + 3])
    if level ~= 2 then words[#words + 1], words[#words + 2] = "level:" .. id, level end
    for _, note in ipairs({ "crash:", "cancel:", "asked:", "level:" }) do old[#old + 1] = note .. id end
    table.insert(levels[level], id)
  end
end
if #moved == 0 then return { tonumber(ARGV[2]), unpack(answers) } end
-- Written to the new place first, removed from the old one last: a key of a wrong type ends the script, nothing is lost.
redis.call("HSET", KEYS[3], unpack(bodies))
redis.call("HDEL", KEYS[8], unpack(old))
redis.call("HSET", KEYS[8], unpack(words))
for level, going in ipairs(levels) do put(going, level, false, { KEYS[4], KEYS[5], KEYS[6] }, nil, KEYS[7]) end
redis.call("HDEL", KEYS[1], unpack(moved))
return { unlist(moved, KEYS[2], place), unpack(answers) }
