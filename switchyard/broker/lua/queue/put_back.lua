#!lua flags=allow-oom
-- put_back: put messages that a purge set aside back before what was sent since, the last ones first; and forget the purge
-- with its last one.
-- KEYS[1..3] bodies, notes, unique: hashes
-- KEYS[4..12] waiting in the live, the retry and the alone lane, by priority: lists
-- KEYS[13..15] due in these lanes: sorted sets
-- KEYS[16..18] bells of these lanes: lists
-- KEYS[19..20] done: hashes
-- KEYS[21] dead letters: hash
-- KEYS[22] jobs: hash
-- KEYS[23] purges: hash
-- KEYS[24..26] bodies, notes, unique of what is set aside: hashes
-- KEYS[27..35] waiting, set aside: lists
-- KEYS[36..38] due, set aside: sorted sets
-- KEYS[39] jobs, set aside: hash
-- ARGV[1] purge: its claim is "undo"
-- ARGV[2] count: messages moved in one call, at most 500
-- A message whose id was sent again since is left out, wherever the newer one is: it waits, runs, is dead, or has ended in
-- the last 10 to 20 minutes. One that a pause of its actor had put off is due, and one that waited for a limit, in its turn. A unique key stays with the newer message that holds it: both were accepted.
-- Returns {1 when more calls are needed, else 0; messages left out by all calls}; {0, 0} after the last one.
-- O(count · log scheduled).
--@include put
--@include actor_pauses

if redis.call("HGET", KEYS[23], ARGV[1] .. ":claim") ~= "undo" then return { 0, 0 } end
-- A key of a wrong type ends the script here, and nothing has changed.
for _, n in ipairs({ 1, 2, 3, 22, 24, 25, 26, 39 }) do redis.call("HLEN", KEYS[n]) end
for n = 4, 12 do redis.call("LLEN", KEYS[n]) end
for n = 13, 15 do redis.call("ZCARD", KEYS[n]) end
for n = 16, 18 do redis.call("LLEN", KEYS[n]) end
local there = redis.call("EXISTS", KEYS[25], KEYS[39], KEYS[39])
local noted, recorded = there % 2 == 1, there >= 2
local room, left_out = tonumber(ARGV[2]), 0

local function move_notes(id, goes)
  local names = { "key:" .. id, "level:" .. id, "crash:" .. id, "spent:" .. id, "cancel:" .. id, "asked:" .. id }
  local notes = redis.call("HMGET", KEYS[25], unpack(names))
  local key = notes[1]
  if key then
    if goes and redis.call("HSETNX", KEYS[3], key, id) == 0 then notes[1] = nil end
    if redis.call("HGET", KEYS[26], key) == id then redis.call("HDEL", KEYS[26], key) end
  end
  for n, name in ipairs(names) do
    if goes and notes[n] then redis.call("HSET", KEYS[2], name, notes[n]) end
  end
  redis.call("HDEL", KEYS[25], unpack(names))
end

-- Move bodies, notes, unique keys and live records of ids; return the ids that are put back.
local function moved(ids)
  local newer, seen, going = {}, {}, {}
  for _, key in ipairs({ KEYS[1], KEYS[19], KEYS[20], KEYS[21] }) do
    for at, found in ipairs(redis.call("HMGET", key, unpack(ids))) do newer[at] = newer[at] or found end
  end
  local bodies = redis.call("HMGET", KEYS[24], unpack(ids))
  local lives = recorded and redis.call("HMGET", KEYS[39], unpack(ids)) or {}
  for at, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      if noted then move_notes(id, not newer[at]) end
      if newer[at] then
        left_out = left_out + (bodies[at] and 1 or 0)
      else
        going[#going + 1] = id
        if bodies[at] then redis.call("HSET", KEYS[1], id, bodies[at]) end
        if lives[at] then redis.call("HSETNX", KEYS[22], id, lives[at]) end
      end
    end
  end
  redis.call("HDEL", KEYS[24], unpack(ids))
  if recorded then redis.call("HDEL", KEYS[39], unpack(ids)) end
  return going
end

for place = 4, 12 do
  local ids = room > 0 and redis.call("LRANGE", KEYS[place + 23], -room, -1) or {}
  if #ids > 0 then
    local going = moved(ids)
    for n = #going, 1, -1 do redis.call("LPUSH", KEYS[place], going[n]) end
    redis.call("LTRIM", KEYS[place + 23], 0, -#ids - 1)
    notify(KEYS[16 + math.floor((place - 4) / 3)])
    room = room - #ids
  end
end
for place = 13, 15 do
  local due = room > 0 and redis.call("ZRANGE", KEYS[place + 23], 0, room - 1, "WITHSCORES") or {}
  local ids, score = {}, {}
  for n = 1, #due, 2 do
    ids[#ids + 1], score[due[n]] = due[n], due[n + 1]
  end
  if #ids > 0 then
    for _, id in ipairs(moved(ids)) do
      local due_at = tonumber(score[id])
      if due_at > PUT_OFF and due_at < LAST_PUT_OFF then due_at = due_at < CIRCUITS and due_at - PUT_OFF or math.max((due_at - LIMITS) % (3 * 10 ^ 12), 1) end
      redis.call("ZADD", KEYS[place], due_at, id)
    end
    redis.call("ZREM", KEYS[place + 23], unpack(ids))
    notify(KEYS[place + 3])
    room = room - #ids
  end
end

local field = ARGV[1] .. ":left_out"
local total = left_out > 0 and redis.call("HINCRBY", KEYS[23], field, left_out)
  or tonumber(redis.call("HGET", KEYS[23], field) or 0)
if room < tonumber(ARGV[2]) then return { 1, total } end
redis.call("UNLINK", KEYS[24], KEYS[25], KEYS[26], KEYS[39])
redis.call("HDEL", KEYS[23], ARGV[1], ARGV[1] .. ":claim", field)
return { 0, total }
