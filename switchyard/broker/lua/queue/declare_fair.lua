#!lua flags=allow-oom
-- declare_fair: serve a lane's tenants in turn, or in the order of its list again.
-- KEYS[1] fair: string
-- KEYS[2] due: sorted set
-- KEYS[3] bell: list
-- KEYS[4..6] lines, shares, spent: sorted sets
-- ARGV[1] count: messages that are made due in one call
-- ARGV[2] what is declared, JSON; "" for nothing
-- Messages that stood in a line are due then, in their turns; so are those that an interrupted call left, before new lines
-- are declared.
-- Returns 1 when more calls are needed, else 0. O(count · log scheduled).
--@include put
--@include fair

local is_fair = ARGV[2] ~= "" and redis.call("EXISTS", KEYS[1]) == 1
if not is_fair then redis.call("UNLINK", KEYS[1], KEYS[4], KEYS[5], KEYS[6]) end
local found = is_fair and {}
  or redis.call("ZRANGEBYSCORE", KEYS[2], FAIR, FAIR + 999999999999, "WITHSCORES", "LIMIT", 0, ARGV[1])
if #found == 0 then
  if ARGV[2] ~= "" then redis.call("SET", KEYS[1], ARGV[2]) end
  return 0
end
local scored = {}
for i = 1, #found, 2 do scored[i], scored[i + 1] = tonumber(found[i + 1]) - FAIR, found[i] end
redis.call("ZADD", KEYS[2], unpack(scored))
notify(KEYS[3])
return 1
