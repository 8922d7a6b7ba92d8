#!lua flags=allow-oom
-- job_sweep: drop live records whose message is gone, as after a kill between the move of a message and its record.
-- KEYS[1] jobs: hash
-- KEYS[2] progress: hash
-- KEYS[3] bodies: hash
-- ARGV[1] cursor, "0" at the beginning
-- ARGV[2] count: records looked at in one call, about
-- Only where the broker finds messages by id: there a live record is written only while its message is in the bodies.
-- Returns {next cursor, dropped}; the cursor is "0" at the end. O(count).

local page = redis.call("HSCAN", KEYS[1], ARGV[1], "COUNT", ARGV[2])
local gone = {}
for n = 1, #page[2], 2 do
  local id = page[2][n]
  if redis.call("HEXISTS", KEYS[3], id) == 0 then gone[#gone + 1] = id end
end
-- A small hash is answered whole: 128 records at most, as configured by default.
for _, id in ipairs(gone) do
  redis.call("HDEL", KEYS[1], id)
  redis.call("HDEL", KEYS[2], id)
end
return { page[1], #gone }
