#!lua flags=allow-oom
-- pause: lease no messages of a family until it is resumed, or until a time.
-- KEYS[1] paused: string
-- ARGV[1] until_ms: time at which it resumes by itself, ms since the epoch; 0 for none
-- ARGV[2] by: name of the operator
-- ARGV[3] reason
-- A paused family keeps the time of its pause; a call with until_ms or a reason replaces the rest, another changes nothing.
-- Returns 1, 2 when it was paused already and the rest is replaced, 0 when it stays as it was, or -1 when until_ms is over
-- by the server's clock: then it does nothing. O(1).
--@include now_ms

local now, until_ms = now_ms(), tonumber(ARGV[1])
if until_ms > 0 and until_ms <= now then return -1 end
local before = redis.call("GET", KEYS[1])
if before and until_ms == 0 and ARGV[3] == "" then return 0 end
-- Before it held more than the time, a pause was that number alone; both begin with it.
local since = before and tonumber(string.match(before, "%d+")) or now
local text = string.format('{"since":%d,"until":%d,"by":', since, until_ms)
text = text .. cjson.encode(ARGV[2]) .. ',"reason":' .. cjson.encode(ARGV[3]) .. "}"
if until_ms > 0 then
  redis.call("SET", KEYS[1], text, "PXAT", until_ms)
else
  redis.call("SET", KEYS[1], text)
end
return before and 2 or 1
