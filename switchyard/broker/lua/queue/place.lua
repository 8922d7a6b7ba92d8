#!lua flags=allow-oom
-- place: put messages that were taken from another family into a lane, each id once, however often the call is repeated.
-- KEYS[1] bodies: hash
-- KEYS[2..4] waiting, by priority: lists
-- KEYS[5] bell: list
-- KEYS[6..7] done: hashes
-- KEYS[8] dead letters: hash
-- KEYS[9] unique: hash
-- KEYS[10] notes: hash
-- ARGV[1] level: 1 high, 2 normal, 3 low priority
-- ARGV[2...] id, body, unique key, note of crashes, "1" when its cancellation was requested ("" for none), at most 500
-- A message whose unique key another one holds here is put without the key: both were accepted. One that is known here
-- stays as it is, but for a request to cancel it. The caller drops the messages from their old family afterwards.
-- Returns 1. O(messages).
--@include put

local level = tonumber(ARGV[1])
local function known(id)
  for _, key in ipairs({ KEYS[1], KEYS[6], KEYS[7], KEYS[8] }) do
    if redis.call("HEXISTS", key, id) == 1 then return true end
  end
end

local ids = {}
for i = 2, #ARGV, 5 do
  local id, key, crashes, asked = ARGV[i], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
  local new = not known(id)
  if new then
    redis.call("HSET", KEYS[1], id, ARGV[i + 1])
    if key ~= "" and redis.call("HSETNX", KEYS[9], key, id) == 1 then redis.call("HSET", KEYS[10], "key:" .. id, key) end
    if crashes ~= "" then redis.call("HSET", KEYS[10], "crash:" .. id, crashes) end
    if level ~= 2 then redis.call("HSET", KEYS[10], "level:" .. id, level) end
    ids[#ids + 1] = id
  end
  if asked ~= "" and (new or redis.call("HEXISTS", KEYS[1], id) == 1) then redis.call("HSET", KEYS[10], "asked:" .. id, 1) end
end
put(ids, level, false, { KEYS[2], KEYS[3], KEYS[4] }, nil, KEYS[5])
return 1
