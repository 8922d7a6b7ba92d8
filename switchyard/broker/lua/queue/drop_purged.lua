#!lua flags=allow-oom
-- drop_purged: drop messages that a purge set aside, once they are read; and forget the purge with its last one.
-- KEYS[1] purges: hash
-- KEYS[2..4] bodies, notes, unique of what is set aside: hashes
-- KEYS[5..13] waiting, set aside: lists
-- KEYS[14..16] due, set aside: sorted sets
-- KEYS[17] jobs, set aside: hash
-- ARGV[1] purge
-- ARGV[2] place: the number of one of the keys 5 to 16, whose first messages are dropped; 0 for none
-- ARGV[3...] their ids as they were read, at most 500
-- Of a list that has changed since, nothing is dropped. Bodies and notes go with their messages: freed at once, a million
-- would hold the server's allocator up for 100 ms at one of its next calls.
-- Returns how many are left, or -1 when the list has changed. O(messages).
--@include now_ms
--@include finish

local place = tonumber(ARGV[2])
if place > 0 and place < 14 then
  for n, id in ipairs(redis.call("LRANGE", KEYS[place], 0, #ARGV - 3)) do
    if id ~= ARGV[n + 2] then return -1 end
  end
  redis.call("LTRIM", KEYS[place], #ARGV - 2, -1)
elseif place >= 14 then
  redis.call("ZREM", KEYS[place], unpack(ARGV, 3))
end
if place > 0 then
  for n = 3, #ARGV do note_end(ARGV[n], "cancelled", string.sub(KEYS[1], 1, -13) .. "ends") end
  redis.call("HDEL", KEYS[2], unpack(ARGV, 3))
  redis.call("HDEL", KEYS[17], unpack(ARGV, 3))
  if redis.call("EXISTS", KEYS[3]) == 1 then
    for n = 3, #ARGV do
      local id = ARGV[n]
      local key = redis.call("HGET", KEYS[3], "key:" .. id)
      if key then redis.call("HDEL", KEYS[4], key) end
      redis.call("HDEL", KEYS[3], "level:" .. id, "key:" .. id, "crash:" .. id, "spent:" .. id, "cancel:" .. id, "asked:" .. id)
    end
  end
end
local left = 0
for n = 5, 13 do left = left + redis.call("LLEN", KEYS[n]) end
for n = 14, 16 do left = left + redis.call("ZCARD", KEYS[n]) end
if left == 0 then
  redis.call("UNLINK", KEYS[2], KEYS[3], KEYS[4], KEYS[17])
  redis.call("HDEL", KEYS[1], ARGV[1], ARGV[1] .. ":claim")
end
return left
