#!lua flags=allow-oom
-- override_limit: let another number of messages of each key of a limit run at once, until a time, or as it says again.
-- KEYS[1] limits: hash
-- ARGV[1] limit: "c", its actor, and its argument if it has one, with spaces between
-- ARGV[2] override as a JSON object, "n" and "until" (ms since the epoch) first; "" to end it
-- ARGV[3] after: key that the call before answered, "" for the first one
-- Free places go to those that wait. A caller that is interrupted leaves the rest of the keys to the next check of the
-- places, see lapsed; so does the end of an override at its time. Of a smaller number those that run are not stopped.
-- Returns the last key that was seen, "" when there are no more; -1 when until is over by the server's clock: then it does
-- nothing. O(200 · log waiting).
--@include now_ms
--@include fair
--@include limits

local field, ends = "\n" .. ARGV[1], string.match(ARGV[2], '"until":(%d+)')
if ends and tonumber(ends) <= now_ms() then return -1 end
if ARGV[2] == "" then
  redis.call("HDEL", KEYS[1], field)
else
  redis.call("HSET", KEYS[1], field, ARGV[2])
end
local after = ARGV[3] == "" and string.sub(ARGV[1], 1, -2) or ARGV[3]
return limits_of(KEYS[1]).pass_on_from(after, "[" .. ARGV[1] .. "\255")
