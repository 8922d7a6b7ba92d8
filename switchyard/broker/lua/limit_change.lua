#!lua flags=allow-oom
-- limit_change: change a counter of a rate limiter within its bounds; a repeated call gets the answer of the first.
-- KEYS[1] counter: string
-- KEYS[2] answer: string
-- KEYS[3...] counters whose sum has the same maximum, if any
-- ARGV[1] amount, negative to decrement
-- ARGV[2] minimum
-- ARGV[3] maximum
-- ARGV[4] ttl_ms of the counter
-- ARGV[5] ttl_ms of the answer
-- ARGV[6] "new" to change a counter only where there is none
-- Returns 1 when the counter was changed, else 0. O(counters).

local known = redis.call("GET", KEYS[2])
if known then return tonumber(known) end

local minimum, maximum = tonumber(ARGV[2]), tonumber(ARGV[3])
local before = redis.call("GET", KEYS[1])
local value = tonumber(before or 0) + tonumber(ARGV[1])
local fits = value >= minimum and value <= maximum and not (before and ARGV[6] == "new")
if #KEYS > 2 then
  local sum = tonumber(ARGV[1])
  for n = 3, #KEYS do sum = sum + tonumber(redis.call("GET", KEYS[n]) or 0) end
  fits = fits and sum <= maximum
end
if fits then redis.call("SET", KEYS[1], value, "PX", ARGV[4]) end
redis.call("SET", KEYS[2], fits and 1 or 0, "PX", ARGV[5])
return fits and 1 or 0
