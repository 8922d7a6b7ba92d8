-- Acknowledge id, token pairs of ARGV[first..last] for an owner's hold. Needs finish.
-- Returns the positions (1 …) of pairs whose token is stale; they change nothing.
local function acked(first, last, hold, bodies, done_0, done_1, notes, unique)
  local stale, ids, words = {}, {}, {}
  if last < first then return stale end
  local asked = {}
  for i = first, last, 2 do asked[#asked + 1] = ARGV[i] end
  local tokens = redis.call("HMGET", hold, unpack(asked))
  for n, id in ipairs(asked) do
    local token = ARGV[first + 2 * n - 1]
    if tokens[n] == token then
      ids[#ids + 1], words[#words + 1] = id, token
    else
      local word = ended_by(id, done_0, done_1)
      -- A pair that was acknowledged before with this token gets the same answer.
      if not word or string.match(word, "^%S+") ~= token then stale[#stale + 1] = n end
    end
  end
  local before = finish(ids, words, hold, bodies, done_0, done_1, notes, unique)
  if next(before) then
    for n, id in ipairs(asked) do
      if before[id] and tokens[n] == ARGV[first + 2 * n - 1] then stale[#stale + 1] = n end
    end
  end
  return stale
end
