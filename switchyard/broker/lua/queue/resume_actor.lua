#!lua flags=allow-oom
-- resume_actor: end the pause of an actor, and make due what pauses that have ended had put off, in its order.
-- KEYS[1] pauses of actors: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..7] bells of these lanes: lists
-- ARGV[1] pause: its field; "" for those whose time is over
-- ARGV[2] count: messages that are made due in one call, at most 500
-- A pause that has ended stays until a call finds no message left: one that is interrupted is completed by the next, also
-- by a consumer's. What other pauses had put off before the end is put off anew when it would be leased.
-- Returns {1 when it was in force, 1 when more calls are needed}. O(count · log scheduled).
--@include now_ms
--@include put
--@include actor_pauses

local now, ended = now_ms(), 0
local text = ARGV[1] ~= "" and redis.call("HGET", KEYS[1], ARGV[1])
local until_ms = text and string.match(text, '^{"since":%d+,"until":(%d+),')
if until_ms and (until_ms == "0" or tonumber(until_ms) > now) then
  text = string.gsub(text, '"until":%d+', string.format('"until":%d', now), 1)
  redis.call("HSET", KEYS[1], ARGV[1], text)
  ended = 1
end
local pauses, room = actor_pauses(KEYS[1], now), tonumber(ARGV[2])
local over = pauses.over
if not over then return { ended, 0 } end
-- With the last pause go all, also those of a time that the clock has not reached again since it was set back.
local last = next(pauses.by_actor) and PUT_OFF + over or LAST_PUT_OFF
for n = 2, 4 do
  local found = room > 0 and redis.call("ZRANGEBYSCORE", KEYS[n], PUT_OFF, last, "WITHSCORES", "LIMIT", 0, room) or {}
  local scored = {}
  for i = 1, #found, 2 do 
    scored[i], scored[i + 1] = math.min(tonumber(found[i + 1]) - PUT_OFF, now), found[i]
  end
  if #found > 0 then
    redis.call("ZADD", KEYS[n], unpack(scored))
    room = room - #found / 2
  end
  notify(KEYS[n + 3])
end
if room == 0 then return { ended, 1 } end
local fields = redis.call("HGETALL", KEYS[1])
for i = 1, #fields, 2 do
  local ends = tonumber(string.match(fields[i + 1], '^{"since":%d+,"until":(%d+),') or 0)
  if ends > 0 and ends <= over then redis.call("HDEL", KEYS[1], fields[i]) end
end
return { ended, 0 }
