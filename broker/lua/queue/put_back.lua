#!lua flags=allow-oom
-- put_back: put what a purge set aside back before what was sent since; in steps, where more than a few were sent since.
-- KEYS[1..3] bodies, notes, unique: hashes
-- KEYS[4..12] waiting in the live, the retry and the alone lane, by priority: lists
-- KEYS[13..15] due in these lanes: sorted sets
-- KEYS[16..18] bells of these lanes: lists
-- KEYS[19] purges: hash
-- KEYS[20..22] bodies, notes, unique of what is set aside: hashes
-- KEYS[23..31] waiting, set aside: lists
-- KEYS[32..34] due, set aside: sorted sets
-- ARGV[1] purge: its claim is "undo"
-- ARGV[2] count: messages moved in one call, at most 500
-- A step sets the next messages that were sent since aside as well, behind the others. The last one, when so few are left
-- that one call does, renames the keys back. A message whose id was enqueued again has the newer body; a unique key stays
-- with the newer message: both were accepted.
-- Returns 1 when more calls are needed, or 0 when everything is back, also by an earlier call.
-- O(count · log scheduled + leased messages).
--@include put

if redis.call("HGET", KEYS[19], ARGV[1] .. ":claim") ~= "undo" then return 0 end
local most = tonumber(ARGV[2])

-- Move bodies, notes and unique keys of ids; return the ids that are in no list or sorted set that is set aside.
local function join(ids)
  local bodies, there = redis.call("HMGET", KEYS[1], unpack(ids)), redis.call("HMGET", KEYS[20], unpack(ids))
  local noted = redis.call("EXISTS", KEYS[2]) == 1
  local new = {}
  for n, id in ipairs(ids) do
    local was_due = there[n]
      and redis.call("ZREM", KEYS[32], id) + redis.call("ZREM", KEYS[33], id) + redis.call("ZREM", KEYS[34], id) > 0
    if bodies[n] then redis.call("HSET", KEYS[20], id, bodies[n]) end
    if not there[n] or was_due then new[#new + 1] = id end
    if noted then
      local names = { "level:" .. id, "key:" .. id, "crash:" .. id, "spent:" .. id, "cancel:" .. id, "asked:" .. id }
      for k, note in ipairs(redis.call("HMGET", KEYS[2], unpack(names))) do
        if note then
          redis.call("HSET", KEYS[21], names[k], note)
          redis.call("HDEL", KEYS[2], names[k])
        end
        if note and k == 2 and redis.call("HGET", KEYS[3], note) == id then
          redis.call("HSET", KEYS[22], note, id)
          redis.call("HDEL", KEYS[3], note)
        end
      end
    end
  end
  redis.call("HDEL", KEYS[1], unpack(ids))
  return new
end

local left = most
for place = 4, 12 do
  local ids = left > 0 and redis.call("LRANGE", KEYS[place], 0, left - 1) or {}
  if #ids > 0 then
    local new = join(ids)
    if #new > 0 then redis.call("RPUSH", KEYS[place + 19], unpack(new)) end
    redis.call("LTRIM", KEYS[place], #ids, -1)
    left = left - #ids
  end
end
for place = 13, 15 do
  local due = left > 0 and redis.call("ZRANGE", KEYS[place], 0, left - 1, "WITHSCORES") or {}
  local ids, score = {}, {}
  for n = 1, #due, 2 do
    ids[#ids + 1], score[due[n]] = due[n], due[n + 1]
  end
  if #ids > 0 then
    for _, id in ipairs(join(ids)) do redis.call("ZADD", KEYS[place + 19], score[id], id) end
    redis.call("ZREM", KEYS[place], unpack(ids))
    left = left - #ids
  end
end
if left <= 0 then return 1 end

-- Nothing but leased messages is left. Their entries join the others, and the keys get their names back.
for place = 1, 3 do
  local entries = redis.call("HGETALL", KEYS[place])
  for n = 1, #entries, 500 do
    redis.call("HSET", KEYS[place + 19], unpack(entries, n, math.min(n + 499, #entries)))
  end
  redis.call("DEL", KEYS[place])
end
for place = 1, 15 do
  local aside = KEYS[place + 19]
  if redis.call("EXISTS", aside) == 1 then redis.call("RENAME", aside, KEYS[place]) end
end
for place = 16, 18 do notify(KEYS[place]) end
redis.call("HDEL", KEYS[19], ARGV[1], ARGV[1] .. ":claim")
return 0
