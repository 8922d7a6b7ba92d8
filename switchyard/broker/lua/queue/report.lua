#!lua flags=allow-oom
-- report: record what owners run, in case they end together with their supervisor.
-- KEYS[1] leases: sorted set
-- KEYS[2] running: hash
-- ARGV[1...] owner, work: "<oldest leases that may run> <1 when nothing runs beside it, else 0> <host>", and a line for
--   each message that runs for long
-- Returns how many were recorded: not those without a lease. O(owners given).

local recorded = 0
for i = 1, #ARGV, 2 do
  if tonumber(redis.call("ZSCORE", KEYS[1], ARGV[i]) or 0) > 0 then
    redis.call("HSET", KEYS[2], ARGV[i], ARGV[i + 1])
    recorded = recorded + 1
  end
end
return recorded
