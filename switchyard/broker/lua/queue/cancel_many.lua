#!lua flags=allow-oom
-- cancel_many: keep messages from starting, as cancel does with one; a repeated call gets the same answers.
-- KEYS[1] bodies: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..6] done: hashes
-- KEYS[7] notes: hash
-- KEYS[8] unique: hash
-- KEYS[9] leases: sorted set
-- KEYS[10] ended: hash
-- KEYS[11] history: stream
-- KEYS[12...] holds of the owners: hashes
-- ARGV[1] nonce: an id that was cancelled with it before gets the same answer
-- ARGV[2] bytes of the history
-- ARGV[3] number of owners
-- ARGV[4...] the owners, in the order of their holds, then at most 500 ids, each with its row for the history, "" for none
-- A row is added in the call that cancels its job: a scheduled message is gone after it, and so is what a repeated call
-- could make a row of.
-- Returns "owners" when the owners have changed, or for each id "cancelled" (it never starts), "asked", "before" (it was
-- cancelled by another call) or "unknown". O(ids × owners).
--@include now_ms
--@include finish
--@include records

local nonce, owners = ARGV[1], tonumber(ARGV[3])
local known, ids, row_of = {}, {}, {}
for i = 4, 3 + owners do known[ARGV[i]] = true end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[9], 0, -1)) do
  if not known[owner] then return "owners" end
end
for i = 4 + owners, #ARGV, 2 do
  local n = #ids + 1
  ids[n], row_of[n] = ARGV[i], ARGV[i + 1]
end
if #ids == 0 then return {} end

local is_held, is_due, noted = {}, {}, {}
for i = 12, #KEYS do
  for n, token in ipairs(redis.call("HMGET", KEYS[i], unpack(ids))) do is_held[n] = is_held[n] or token end
end
for i = 2, 4 do
  for n, score in ipairs(redis.call("ZMSCORE", KEYS[i], unpack(ids))) do is_due[n] = is_due[n] or (score and KEYS[i]) end
end
for n, id in ipairs(ids) do noted[n] = redis.call("HMGET", KEYS[7], "cancel:" .. id, "asked:" .. id, "key:" .. id) end

local answers, removed, words, notes, rows = {}, {}, {}, {}, {}
for n, id in ipairs(ids) do
  local cancelled, asked, key = unpack(noted[n])
  local note, ends = cancelled or asked, false
  if redis.call("HEXISTS", KEYS[1], id) == 0 then
    local word = ended_by(id, KEYS[5], KEYS[6])
    local move, by = string.match(word or "", "^(%S+) ?(%S*)")
    answers[n] = move == "cancel" and (by == nonce and "cancelled" or "before") or "unknown"
  elseif note then
    answers[n] = note ~= nonce and "before" or cancelled and "cancelled" or "asked"
  elseif is_held[n] then
    notes[#notes + 1], notes[#notes + 2], answers[n] = "asked:" .. id, nonce, "asked"
  elseif is_due[n] then
    redis.call("ZREM", is_due[n], id)
    removed[#removed + 1], words[#words + 1], answers[n] = id, "cancel " .. nonce, "cancelled"
    ends = true
  else
    notes[#notes + 1], notes[#notes + 2], answers[n] = "cancel:" .. id, nonce, "cancelled"
    ends = true
    if key then
      redis.call("HDEL", KEYS[7], "key:" .. id)
      if redis.call("HGET", KEYS[8], key) == id then redis.call("HDEL", KEYS[8], key) end
    end
  end
  if ends and row_of[n] ~= "" then rows[#rows + 1] = row_of[n] end
end
if #rows > 0 then
  local size = string.char(math.floor(#rows / 256), #rows % 256)
  local packed = "\220" .. size .. table.concat(rows) -- a MessagePack array
  pcall(record_ended, KEYS[10], KEYS[11], {}, 0, #rows, packed, { 0, 0, ARGV[2] })
end
if #notes > 0 then redis.call("HSET", KEYS[7], unpack(notes)) end
finish(removed, words, nil, KEYS[1], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
return answers
