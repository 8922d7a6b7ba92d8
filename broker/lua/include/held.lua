-- Whether this very move of an id happened before: it is the last one noted of it, or it ended since. Needs ended_by.
local function repeated(id, spent, notes, done_0, done_1)
  if redis.call("HGET", notes, "spent:" .. id) == spent then return true end
  local word = ended_by(id, done_0, done_1)
  if not word then return false end
  -- "<what ended it>", or "<what ended it> <the last move before>".
  return word == spent or string.sub(word, 1, #spent + 1) == spent .. " " or string.sub(word, -#spent - 1) == " " .. spent
end

-- Whether an owner holds an id under a token.
-- One that ended while it was held, because its id was in the lane twice, is nobody's any more.
local function holds(hold, id, token, done_0, done_1)
  return redis.call("HGET", hold, id) == token and not ended_by(id, done_0, done_1)
end

-- What a move of an id by an owner is: "yes" when the owner holds it, "done" when it happened before, or "stale".
local function held(hold, id, token, move, notes, done_0, done_1)
  if holds(hold, id, token, done_0, done_1) then return "yes" end
  return repeated(id, move .. " " .. token, notes, done_0, done_1) and "done" or "stale"
end
