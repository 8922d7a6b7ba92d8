#!lua flags=allow-oom
-- cancel: keep messages from starting; for leased ones, record that their cancellation is requested.
-- KEYS[1] bodies: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..6] done: hashes
-- KEYS[7] notes: hash
-- KEYS[8] unique: hash
-- KEYS[9] leases: sorted set
-- KEYS[10] ended: hash
-- KEYS[11] history: stream
-- KEYS[12] purges: hash; what they set aside lies beside it
-- KEYS[13...] holds of the owners: hashes
-- ARGV[1] nonce: an id that was cancelled with it before gets the same answer
-- ARGV[2..4] ttl_ms of ended jobs, bytes of their records (0: rows alone are written), bytes of the history
-- ARGV[5] number of owners
-- ARGV[6...] the owners, in the order of their holds, then at most 500 ids, each with the record of its job as cancelled,
-- which is its row for the history as well; "" for none
-- A waiting message stays in its list and is dropped when it would be leased: a search would be O(N). Its unique key
-- is free at once: a message that is sent again under the key is to run. The cancellation is recorded here: a caller that is
-- killed after its call leaves no job without an end. One that a purge has set aside keeps its note when it is put back.
-- Returns "owners" when the owners have changed, or for each id "cancelled" (it never starts), "asked", these two after
-- "was " when another call did so, or "unknown". O(ids × (owners + purges)).
--@include now_ms
--@include fair
--@include limits
--@include finish
--@include records

local nonce, owners = ARGV[1], tonumber(ARGV[5])
local known, ids, record_of = {}, {}, {}
for i = 6, 5 + owners do known[ARGV[i]] = true end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[9], 0, -1)) do
  if not known[owner] then return "owners" end
end
for i = 6 + owners, #ARGV, 2 do
  ids[#ids + 1] = ARGV[i]
  record_of[ARGV[i]] = ARGV[i + 1]
end
if #ids == 0 then return {} end

local is_held = {}
for i = 13, #KEYS do
  for n, token in ipairs(redis.call("HMGET", KEYS[i], unpack(ids))) do is_held[n] = is_held[n] or token end
end

-- Note that a message is cancelled; it gives its unique key up. Returns what was noted before, or nil.
local function note_cancelled(id, notes, unique)
  local before, key = unpack(redis.call("HMGET", notes, "cancel:" .. id, "key:" .. id))
  if not before then redis.call("HSET", notes, "cancel:" .. id, nonce) end
  if key then
    redis.call("HDEL", notes, "key:" .. id)
    if redis.call("HGET", unique, key) == id then redis.call("HDEL", unique, key) end
  end
  return before or nil
end

-- Cancel a message that a purge has set aside; returns what was noted before, or false when none has.
local function cancel_aside(id)
  for _, purge in ipairs(redis.call("HKEYS", KEYS[12])) do
    local function aside(name) return string.sub(KEYS[12], 1, -7) .. purge .. ":" .. name end
    if not string.find(purge, ":", 1, true) and redis.call("HEXISTS", aside("bodies"), id) == 1 then
      return note_cancelled(id, aside("notes"), aside("unique"))
    end
  end
  return false
end

local answers, removed, words, fields, rows, bytes = {}, {}, {}, {}, {}, 0
for n, id in ipairs(ids) do
  local answer, before = "cancelled", nil
  if redis.call("HEXISTS", KEYS[1], id) == 0 then
    before = cancel_aside(id)
    if before == false then
      local move, by = string.match(ended_by(id, KEYS[5], KEYS[6]) or "", "^(%S+) ?(%S*)")
      answer, before = move == "cancel" and "cancelled" or "unknown", move == "cancel" and by or nonce
    end
  elseif is_held[n] then
    answer, before = "asked", redis.call("HGET", KEYS[7], "asked:" .. id) or nil
    if not before then redis.call("HSET", KEYS[7], "asked:" .. id, nonce) end
  elseif redis.call("ZREM", KEYS[2], id) + redis.call("ZREM", KEYS[3], id) + redis.call("ZREM", KEYS[4], id) > 0 then
    removed[#removed + 1], words[#words + 1] = id, "cancel " .. nonce
  else
    before = note_cancelled(id, KEYS[7], KEYS[8])
  end
  if answer == "cancelled" then note_end(id, answer, string.sub(KEYS[1], 1, -7) .. "ends") end
  answers[n] = (before or nonce) == nonce and answer or "was " .. answer
  if not before and answer == "cancelled" and record_of[id] ~= "" then
    fields[#fields + 1], fields[#fields + 2], rows[#rows + 1] = id, record_of[id], record_of[id]
    bytes = bytes + #id + #record_of[id] + 64
  end
end
-- A key of the records that is of a wrong type costs the record: the message must not start for it.
if #rows > 0 then
  local array = "\220" .. string.char(math.floor(#rows / 256), #rows % 256) -- of MessagePack
  if tonumber(ARGV[3]) == 0 then fields, bytes = {}, 0 end
  local limits = { ARGV[2], ARGV[3], ARGV[4] }
  pcall(record_ended, KEYS[10], KEYS[11], fields, bytes, #rows, array .. table.concat(rows), limits)
end
finish(removed, words, nil, KEYS[1], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
return answers
