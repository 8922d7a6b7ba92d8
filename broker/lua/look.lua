#!lua flags=no-writes
-- look: read messages of one place, with their bodies, for a list of jobs.
-- KEYS[1] waiting in a lane: list; or due in it: sorted set
-- KEYS[2] bodies: hash
-- ARGV[1] first: place of the first message
-- ARGV[2] last: place of the last one
-- ARGV[3] "1" for a sorted set
-- Returns {lengths, parts}: of each message its id, due time and body, joined; one answer of many strings would take a
-- client without a fast parser longer than the rest of its page. The length of a missing body is -1. O(messages).

local found
if ARGV[3] == "1" then
  found = redis.call("ZRANGE", KEYS[1], ARGV[1], ARGV[2], "WITHSCORES")
else
  found = redis.call("LRANGE", KEYS[1], ARGV[1], ARGV[2])
end
local step = ARGV[3] == "1" and 2 or 1
local ids = {}
for i = 1, #found, step do ids[#ids + 1] = found[i] end
if #ids == 0 then return { "", "" } end
local bodies = redis.call("HMGET", KEYS[2], unpack(ids))
local lengths, parts = {}, {}
for i = 1, #ids do
  local due = step == 2 and found[2 * i] or ""
  local body = bodies[i]
  lengths[#lengths + 1] = #ids[i] .. " " .. #due .. " " .. (body and #body or -1)
  parts[#parts + 1] = ids[i]
  parts[#parts + 1] = due
  if body then parts[#parts + 1] = body end
end
return { table.concat(lengths, " "), table.concat(parts) }
