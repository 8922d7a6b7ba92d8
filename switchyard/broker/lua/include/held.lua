-- Whether this move of an id happened before: it is the last recorded one, or the id is finished since. Needs ended_by.
local function repeated(id, spent, notes, done_0, done_1)
  if redis.call("HGET", notes, "spent:" .. id) == spent then return true end
  local word = ended_by(id, done_0, done_1)
  if not word then return false end
  -- "<last operation>", or "<last operation> <the move before it>".
  return word == spent or string.sub(word, 1, #spent + 1) == spent .. " " or string.sub(word, -#spent - 1) == " " .. spent
end

-- Whether an owner holds an id under a token.
-- An id that was finished while it was held, because it was in the lane twice, is held by no owner: its body is gone. One
-- that was put there again by hand after its end has a body.
local function holds(hold, bodies, id, token, done_0, done_1)
  if redis.call("HGET", hold, id) ~= token then return false end
  return not ended_by(id, done_0, done_1) or redis.call("HEXISTS", bodies, id) == 1
end

-- State of a move of an id: "yes" when the owner holds the id, "done" when the move happened before, or "stale".
local function held(hold, bodies, id, token, move, notes, done_0, done_1)
  if holds(hold, bodies, id, token, done_0, done_1) then return "yes" end
  return repeated(id, move .. " " .. token, notes, done_0, done_1) and "done" or "stale"
end
