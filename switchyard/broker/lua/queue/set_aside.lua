#!lua flags=allow-oom
-- set_aside: set every waiting and scheduled message of a family aside, whole, for a purge that can be undone.
-- KEYS[1] leases: sorted set
-- KEYS[2..4] bodies, notes, unique: hashes
-- KEYS[5..13] waiting in the live, the retry and the alone lane, by priority: lists
-- KEYS[14..16] due in these lanes: sorted sets
-- KEYS[17..19] parked in these lanes: sorted sets
-- KEYS[20] purges: hash
-- KEYS[21..23] bodies, notes, unique of what is set aside: hashes
-- KEYS[24..32] waiting, set aside: lists
-- KEYS[33..35] due, set aside: sorted sets
-- KEYS[36] jobs, set aside: hash
-- KEYS[37] jobs: hash
-- KEYS[38...] holds of the owners: hashes
-- ARGV[1] purge: its id; a repeated call gets the same answer
-- ARGV[2] undo_ms: time after which the messages may be dropped
-- ARGV[3] by: name of the operator
-- ARGV[4] reason
-- ARGV[5...] the owners, in the order of their holds
-- Keys are renamed, and leased messages, with their notes, unique keys and live records, put back: they are not touched. A
-- message that is enqueued from now on is new, also under an id or a unique key that was set aside.
-- Returns the number of messages, or -1 when the owners have changed: then it does nothing. O(owners + leased messages).
--@include now_ms
--@include fair
--@include limits

local before = redis.call("HGET", KEYS[20], ARGV[1])
if before then return cjson.decode(before).count end
local known = {}
for i = 5, #ARGV do known[ARGV[i]] = true end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[1], 0, -1)) do
  if not known[owner] then return -1 end
end

-- Everything is read before the first key is renamed: a key of a wrong type ends the script, and nothing has changed.
local count = 0
for _, i in ipairs({ 2, 3, 4, 37 }) do redis.call("HLEN", KEYS[i]) end
for i = 5, 13 do count = count + redis.call("LLEN", KEYS[i]) end
for i = 14, 16 do count = count + redis.call("ZCARD", KEYS[i]) end
if count == 0 then return 0 end
local leased = {}
for i = 38, #KEYS do
  for _, id in ipairs(redis.call("HKEYS", KEYS[i])) do
    if id ~= "#" then leased[#leased + 1] = id end
  end
end

local now = now_ms()
local facts = string.format('{"count":%d,"at":%d,"until":%d,"by":', count, now, now + tonumber(ARGV[2]))
redis.call("HSET", KEYS[20], ARGV[1], facts .. cjson.encode(ARGV[3]) .. ',"reason":' .. cjson.encode(ARGV[4]) .. "}")
for i = 2, 16 do
  if redis.call("EXISTS", KEYS[i]) == 1 then redis.call("RENAME", KEYS[i], KEYS[i + 19]) end
end
local recorded = redis.call("EXISTS", KEYS[37]) == 1
if recorded then redis.call("RENAME", KEYS[37], KEYS[36]) end
-- Places of what is leased stay; what waits for one is scheduled, and comes back due.
if redis.call("EXISTS", string.sub(KEYS[2], 1, -7) .. "turns") == 1 then limits_of(KEYS[2]).keep_alone(leased) end
local function of_live(name) return string.sub(KEYS[14], 1, -4) .. name end
redis.call("UNLINK", of_live("lines"), of_live("shares"), of_live("spent"))
-- An index that may be lost: what comes back waits until it is due.
redis.call("UNLINK", KEYS[17], KEYS[18], KEYS[19])

local noted = redis.call("EXISTS", KEYS[22]) == 1
for _, id in ipairs(leased) do
  local body = redis.call("HGET", KEYS[21], id)
  if body then
    redis.call("HSET", KEYS[2], id, body)
    redis.call("HDEL", KEYS[21], id)
  end
  local record = recorded and redis.call("HGET", KEYS[36], id)
  if record then
    redis.call("HSET", KEYS[37], id, record)
    redis.call("HDEL", KEYS[36], id)
  end
  if noted then
    local names = { "level:" .. id, "key:" .. id, "crash:" .. id, "spent:" .. id, "cancel:" .. id, "asked:" .. id }
    for n, note in ipairs(redis.call("HMGET", KEYS[22], unpack(names))) do
      if note then
        redis.call("HSET", KEYS[3], names[n], note)
        redis.call("HDEL", KEYS[22], names[n])
        if n == 2 and redis.call("HGET", KEYS[23], note) == id then
          redis.call("HSET", KEYS[4], note, id)
          redis.call("HDEL", KEYS[23], note)
        end
      end
    end
  end
end
return count
