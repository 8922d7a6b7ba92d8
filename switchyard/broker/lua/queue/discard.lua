#!lua flags=allow-oom
-- discard: drop dead letters for good, each once, however often the call is repeated.
-- KEYS[1] dead letters: hash
-- KEYS[2] dead: list
-- KEYS[3] bodies: hash
-- KEYS[4..5] done: hashes
-- KEYS[6] notes: hash
-- KEYS[7] unique: hash
-- ARGV[1] nonce: an id that was discarded with it before gets the same answer
-- ARGV[2] from: where in the dead list the first id probably is
-- ARGV[3...] id, dead letter as it was read: at most 500; a letter with other content stays
-- Returns the place for the next call, and for each id 1 when it is gone, also by an earlier call, 0 when there is no such
-- dead letter, -1 when it is to be asked for again: it lies far from the others. O(ids), O(dead letters) for the list.
--@include now_ms
--@include fair
--@include limits
--@include finish
--@include held
--@include dead_list

local word = "discard " .. ARGV[1]
local ids, answers, at_of = {}, {}, {}
for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  answers[#answers + 1] = 0
  if redis.call("HGET", KEYS[1], id) == ARGV[i + 1] then
    ids[#ids + 1], at_of[id] = id, #answers
  elseif repeated(id, word, KEYS[6], KEYS[4], KEYS[5]) then
    answers[#answers] = 1
  end
end
if #ids == 0 then return { tonumber(ARGV[2]), unpack(answers) } end

local place, later = places_of(ids, KEYS[2], tonumber(ARGV[2]))
local gone, words = {}, {}
for _, id in ipairs(ids) do
  answers[at_of[id]] = later[id] and -1 or 1
  if not later[id] then gone[#gone + 1], words[#words + 1] = id, word end
end
redis.call("HDEL", KEYS[1], unpack(gone))
local from = unlist(gone, KEYS[2], place)
finish(gone, words, nil, KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
return { from, unpack(answers) }
