#!lua flags=allow-oom
-- amend: replace the body of a message that waits or is scheduled, and the due time of a scheduled one.
-- KEYS[1] bodies: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..7] bells of these lanes: lists
-- KEYS[8] leases: sorted set
-- KEYS[9...] holds of the owners: hashes
-- ARGV[1] id
-- ARGV[2] body as it was read
-- ARGV[3] body to write
-- ARGV[4] due_at, ms since the epoch; "" to leave it
-- ARGV[5...] the owners, in the order of their holds
-- A fetch reads the body when it leases: the message starts with the old body or with the new one, never with both.
-- Returns 1 when it is amended, also by an earlier call; 0 when it is leased; -1 when it is not here; -2 when its body is
-- another one by now: read it again; -3 when the owners have changed; -4 when it waits already and has no due time to
-- change. O(owners + log scheduled).
--@include now_ms
--@include put

local id = ARGV[1]
local known = {}
for i = 5, #ARGV do known[ARGV[i]] = true end
for _, owner in ipairs(redis.call("ZRANGE", KEYS[8], 0, -1)) do
  if not known[owner] then return -3 end
end
local body = redis.call("HGET", KEYS[1], id)
if not body then return -1 end
if body == ARGV[3] and ARGV[2] ~= ARGV[3] then return 1 end
for i = 9, #KEYS do
  if redis.call("HEXISTS", KEYS[i], id) == 1 then return 0 end
end
if body ~= ARGV[2] then return -2 end
local scheduled = false
for n = 2, 4 do
  if redis.call("ZSCORE", KEYS[n], id) then scheduled = n end
end
if ARGV[4] ~= "" and not scheduled then return -4 end
redis.call("HSET", KEYS[1], id, ARGV[3])
if ARGV[4] ~= "" then
  redis.call("ZADD", KEYS[scheduled], "XX", ARGV[4], id)
  notify(KEYS[scheduled + 3])
end
return 1
