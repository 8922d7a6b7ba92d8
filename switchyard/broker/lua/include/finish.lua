-- The word that is recorded of a finished id, for 10 to 20 minutes; else nil.
local function ended_by(id, done_0, done_1)
  return redis.call("HGET", done_0, id) or redis.call("HGET", done_1, id) or nil
end

-- Note how a member of a batch ended, for the scheduler to count: "done", "failed" or "cancelled". The id of a member is a
-- UUID of version 8, which nothing else here has. A key of a wrong type costs the note: the scheduler looks for the member.
local function note_end(id, outcome, ends)
  if string.byte(id, 15) == 56 and #id == 36 then redis.pcall("HSET", ends, id, outcome) end
end

-- How a finished member ended, by the word of its end. An acknowledged one is done, unless its worker has noted otherwise
-- of the run under this very token.
local function outcome_of(id, word, ends)
  if string.find(word, "^%d+$") then
    local noted = redis.pcall("HGET", ends, id)
    return type(noted) == "string" and string.match(noted, "^%?(%l+) " .. word .. "$") or "done"
  end
  return string.find(word, "^cancel") and "cancelled" or "failed"
end

-- Finish ids: remove them everywhere, and record them in the younger of two hashes for 10 to 20 minutes.
-- `words` holds for each the word to record. Needs now_ms and limits.
-- Returns the set of ids that were finished before, because an id was in the lane twice: the first record stays.
local function finish(ids, words, hold, bodies, done_0, done_1, notes, unique)
  local before = {}
  if #ids == 0 then return before end
  if hold then redis.call("HDEL", hold, unpack(ids)) end
  if redis.call("HDEL", bodies, unpack(ids)) < #ids then
    local seen = {}
    for n = #ids, 1, -1 do
      local id = ids[n]
      if ended_by(id, done_0, done_1) then before[id] = true end
      if before[id] or seen[id] then
        table.remove(ids, n)
        table.remove(words, n)
      end
      seen[id] = true
    end
    if #ids == 0 then return before end
  end
  local now = now_ms()
  local turn = math.floor(now / 600000)
  local done = turn % 2 == 0 and done_0 or done_1
  -- Find which of three keys exist, in one command: EXISTS counts a key as often as it is named, see queue/enqueue.lua.
  local turns = string.sub(bodies, 1, -7) .. "turns"
  local there = redis.call("EXISTS", notes, done, done, turns, turns, turns, turns)
  local noted = there % 2 == 1
  local pairs_ = {}
  for n, id in ipairs(ids) do
    local word = words[n]
    if string.byte(id, 15) == 56 then
      local ends = string.sub(bodies, 1, -7) .. "ends"
      note_end(id, outcome_of(id, word, ends), ends)
    end
    if noted then
      local spent, key = unpack(redis.call("HMGET", notes, "spent:" .. id, "key:" .. id))
      if spent then word = word .. " " .. spent end
      if key and redis.call("HGET", unique, key) == id then redis.call("HDEL", unique, key) end
      redis.call("HDEL", notes, "spent:" .. id, "key:" .. id, "level:" .. id, "crash:" .. id, "cancel:" .. id,
        "asked:" .. id)
    end
    pairs_[2 * n - 1], pairs_[2 * n] = id, word
  end
  redis.call("HSET", done, unpack(pairs_))
  -- An existing hash expires already, unless it is the previous one, in its last moment.
  if there % 4 < 2 or now % 600000 < 1000 then redis.call("PEXPIREAT", done, (turn + 2) * 600000) end
  if there >= 4 then pcall(limits_of(bodies).free, ids, true) end
  return before
end
