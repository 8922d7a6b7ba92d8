#!lua flags=allow-oom
-- cancel: keep a message from starting; for a leased one, record that its cancellation is requested.
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
-- ARGV[1] id
-- ARGV[2] record of the job as cancelled; "" for none
-- ARGV[3] rows of it for the history, MessagePack array
-- ARGV[4..6] ttl_ms of ended jobs, bytes of their records, bytes of the history
-- ARGV[7...] the owners, in the order of their holds
-- A waiting message stays in its list and is dropped when it would be leased: a search would be O(N). Its unique key
-- is free at once: a message that is sent again under the key is to run. The cancellation is recorded here: a caller that is
-- killed after its call leaves no job without an end. One that a purge has set aside keeps its note when it is put back.
-- Returns "cancelled" (it never starts), "asked", "unknown", or "owners" when the owners have changed. O(owners + purges).
--@include now_ms
--@include finish
--@include records

local id = ARGV[1]
local known = {}
for i = 7, #ARGV do known[ARGV[i]] = true end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[9], 0, -1)) do
  if not known[owner] then return "owners" end
end
-- A key of the records that is of a wrong type costs the record: the message must not start for it.
local function record_end()
  if ARGV[2] == "" then return end
  pcall(record_ended, KEYS[10], KEYS[11], { id, ARGV[2] }, #id + #ARGV[2] + 64, 1, ARGV[3], { ARGV[4], ARGV[5], ARGV[6] })
end

-- Note that a message is cancelled; it gives its unique key up.
local function note_cancelled(notes, unique)
  redis.call("HSET", notes, "cancel:" .. id, 1)
  local key = redis.call("HGET", notes, "key:" .. id)
  if key then
    redis.call("HDEL", notes, "key:" .. id)
    if redis.call("HGET", unique, key) == id then redis.call("HDEL", unique, key) end
  end
end

if redis.call("HEXISTS", KEYS[1], id) == 0 then
  for _, purge in ipairs(redis.call("HKEYS", KEYS[12])) do
    local function aside(name) return string.sub(KEYS[12], 1, -7) .. purge .. ":" .. name end
    if not string.find(purge, ":", 1, true) and redis.call("HEXISTS", aside("bodies"), id) == 1 then
      if redis.call("HEXISTS", aside("notes"), "cancel:" .. id) == 0 then record_end() end
      note_cancelled(aside("notes"), aside("unique"))
      return "cancelled"
    end
  end
  local word = ended_by(id, KEYS[5], KEYS[6])
  return word and string.match(word, "^%S+") == "cancel" and "cancelled" or "unknown"
end
for i = 13, #KEYS do
  if redis.call("HEXISTS", KEYS[i], id) == 1 then
    redis.call("HSET", KEYS[7], "asked:" .. id, 1)
    return "asked"
  end
end
record_end()
if redis.call("ZREM", KEYS[2], id) + redis.call("ZREM", KEYS[3], id) + redis.call("ZREM", KEYS[4], id) > 0 then
  finish({ id }, { "cancel" }, nil, KEYS[1], KEYS[5], KEYS[6], KEYS[7], KEYS[8])
else
  note_cancelled(KEYS[7], KEYS[8])
end
return "cancelled"
