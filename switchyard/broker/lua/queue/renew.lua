#!lua flags=allow-oom
-- renew: renew the leases of owners. A lease that expired and was deleted is not created again.
-- KEYS[1] leases: sorted set
-- ARGV[1] lease_ms
-- ARGV[2...] owners
-- Returns the owners without a lease: other owners have their messages. O(owners).
--@include now_ms

local gone = {}
local until_ms = now_ms() + tonumber(ARGV[1])
for i = 2, #ARGV do
  local lease = redis.call("ZSCORE", KEYS[1], ARGV[i])
  if lease and tonumber(lease) > 0 then
    redis.call("ZADD", KEYS[1], "XX", until_ms, ARGV[i])
  else
    gone[#gone + 1] = ARGV[i]
  end
end
return gone
