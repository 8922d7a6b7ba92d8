-- Whether this very move of an id happened before: it is the last one noted of it, or it ended since. Needs ended_by.
local function repeated(id, spent, notes, done_0, done_1)
  if redis.call("HGET", notes, "spent:" .. id) == spent then return true end
  local word = ended_by(id, done_0, done_1)
  return word ~= nil and (word == spent or string.sub(word, -#spent - 1) == " " .. spent)
end

-- Whether an owner holds an id under a token: "yes", "done" when this very move of it happened before, or "stale".
local function held(hold, id, token, move, notes, done_0, done_1)
  if redis.call("HGET", hold, id) == token then return "yes" end
  return repeated(id, move .. " " .. token, notes, done_0, done_1) and "done" or "stale"
end
