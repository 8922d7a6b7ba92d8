#!lua flags=allow-oom
-- lock_take: acquire a named lock, or renew it for its holder.
-- KEYS[1] lock: string, token of the holder
-- KEYS[2] fence: string, number of the last acquisition; absent for a lock without numbers
-- ARGV[1] token
-- ARGV[2] lease_ms
-- ARGV[3] number: that of the acquisition to renew, "" to acquire; absent for a lock without numbers
-- ARGV[4] fence_ms: how long the last number is remembered; absent for a lock without numbers
-- A number is greater than any before, also after the fence has expired or a server has lost it: it is no less than the
-- ms since the epoch. A lock that has expired is renewed as long as nobody has acquired it since.
-- Returns 1, or the number, when the token holds the lock now, else 0. O(1).
--@include now_ms

local holder = redis.call("GET", KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
local number = 1
if ARGV[3] then
  number = tonumber(redis.call("GET", KEYS[2]) or 0)
  if not holder and ARGV[3] ~= "" and number ~= tonumber(ARGV[3]) then return 0 end
  if not holder and ARGV[3] == "" then number = math.max(number + 1, now_ms()) end
  redis.call("SET", KEYS[2], string.format("%d", number), "PX", ARGV[4])
end
redis.call("SET", KEYS[1], ARGV[1], "PX", ARGV[2])
return number
