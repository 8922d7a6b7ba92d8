#!lua flags=allow-oom
-- resume_actor: end the pause of an actor, make due what pauses that have ended had put off, in its order, and let open
-- circuits whose time is over have their next probe.
-- KEYS[1] pauses of actors: hash
-- KEYS[2..4] due in the live, the retry and the alone lane: sorted sets
-- KEYS[5..7] bells of these lanes: lists
-- KEYS[8..10] waiting in these lanes, of normal priority: lists
-- ARGV[1] pause: its field; "" for those whose time is over
-- ARGV[2] count: messages that are made due in one call, at most 500
-- A probe goes to the head of its lane. Messages that a closed circuit had put off are due 2 ms apart: the dependency that has
-- just come back does not get all of them at once. A pause that has ended stays until a call finds no message left: one that
-- is interrupted is completed by the next, also by a consumer's. What other pauses had put off before the end is put off anew
-- when it would be leased.
-- Returns {1 when it was in force, 1 when more calls are needed}. O(count · log scheduled).
--@include now_ms
--@include put
--@include actor_pauses

local APART_MS = 2
local now, ended = now_ms(), 0
local text = ARGV[1] ~= "" and redis.call("HGET", KEYS[1], ARGV[1])
local until_ms = text and string.match(text, '^{"since":%d+,"until":(%d+),')
local opened = text and read_circuit(ARGV[1], text)
if opened and opened.times > 0 then
  opened.times, opened.ends, opened.probe, ended = 0, now, "", 1
  write_circuit(KEYS[1], opened)
elseif until_ms and not opened and (until_ms == "0" or tonumber(until_ms) > now) then
  text = string.gsub(text, '"until":%d+', string.format('"until":%d', now), 1)
  redis.call("HSET", KEYS[1], ARGV[1], text)
  ended = 1
end
local pauses, room = actor_pauses(KEYS[1], now), tonumber(ARGV[2])
for _, circuit in ipairs(pauses.circuits) do
  local first = first_of(circuit)
  local wanted = circuit.times == 0 and room or 1
  local due_at = math.max(circuit.ends, now)
  for n = 2, 4 do
    local found = wanted > 0 and redis.call("ZRANGEBYSCORE", KEYS[n], first, first + SPAN - 1, "LIMIT", 0, wanted) or {}
    if #found > 0 and circuit.times == 0 then
      local scored = {}
      for i, id in ipairs(found) do
        scored[2 * i - 1], scored[2 * i], due_at = due_at, id, due_at + APART_MS
      end
      redis.call("ZADD", KEYS[n], unpack(scored))
    elseif #found > 0 then
      redis.call("ZREM", KEYS[n], found[1])
      redis.call("LPUSH", KEYS[n + 6], found[1])
      circuit.probe = found[1]
    end
    wanted = wanted - #found
    notify(KEYS[n + 3])
  end
  if circuit.times > 0 then
    if wanted > 0 then circuit.probe = "*" end
    circuit.ends = wanted > 0 and 0 or now + circuit.lease_ms
    write_circuit(KEYS[1], circuit)
  elseif wanted > 0 then
    redis.call("HDEL", KEYS[1], circuit.field)
    room = wanted
  else
    circuit.ends = due_at
    write_circuit(KEYS[1], circuit)
    return { ended, 1 }
  end
end
local over = pauses.over
if not over then return { ended, 0 } end
-- With the last pause go all, also those of a time that the clock has not reached again since it was set back.
local last = next(pauses.by_actor) and PUT_OFF + over or LIMITS - 1
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
  if ends > 0 and ends <= over and not read_circuit(fields[i], fields[i + 1]) then redis.call("HDEL", KEYS[1], fields[i]) end
end
return { ended, 0 }
