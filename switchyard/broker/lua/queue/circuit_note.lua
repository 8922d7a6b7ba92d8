#!lua flags=allow-oom
-- circuit_note: count the outcome of a call of a dependency; open its circuit, let it have its next probe, or close it.
-- KEYS[1] pauses of actors: hash
-- KEYS[2] calls: hash, of the circuit while it is closed
-- KEYS[3] token: string
-- KEYS[4..6] bells of the live, the retry and the alone lane: lists
-- ARGV[1] circuit: its field
-- ARGV[2] id of the message
-- ARGV[3] "ok", "failed", or "other" when the attempt ended for another reason
-- ARGV[4] failures: share of the calls at which it opens, 0 to 1
-- ARGV[5] least: calls from which on it may open
-- ARGV[6] window_ms: calls count for so long from the first failure on
-- ARGV[7..8] open_ms, longest_open_ms: until the first probe; doubled with each that fails
-- ARGV[9] probes that must succeed, one after the other
-- ARGV[10] until_ms: open it until then whatever was counted; 0 for no
-- ARGV[11] most: circuits that a family has open at most; one for which nothing waits gives its place to another
-- ARGV[12] the rest of its pause as a JSON object
-- Calls count from a failure on: those of a dependency that works cost one look. A repeated call counts again.
-- Returns "closed" (also for the first time), "opened" by this call, "probed" when the message was the probe and failed, or
-- "open" when it was not: it shall wait. O(pauses).
--@include now_ms
--@include put
--@include actor_pauses

local field, id, outcome, asked_ms = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[10])
local now = now_ms()
local function ring()
  for n = 4, 6 do notify(KEYS[n]) end
end

local function wait_ms(times) return math.min(tonumber(ARGV[7]) * 2 ^ math.min(times - 1, 20), tonumber(ARGV[8])) end

local text = redis.call("HGET", KEYS[1], field)
local circuit = text and read_circuit(field, text)
if circuit and circuit.times > 0 then
  if circuit.probe ~= id then
    if asked_ms > circuit.ends then
      circuit.ends, circuit.probe = asked_ms, ""
      write_circuit(KEYS[1], circuit)
      ring()
    end
    return outcome == "failed" and "open" or "closed"
  end
  circuit.probe, circuit.ends = "", now
  if outcome == "ok" then
    circuit.won = circuit.won + 1
    if circuit.won >= tonumber(ARGV[9]) then circuit.times = 0 end
  elseif outcome == "failed" then
    circuit.times, circuit.won = circuit.times + 1, 0
    circuit.ends = math.max(now + wait_ms(circuit.times), asked_ms)
  end
  write_circuit(KEYS[1], circuit)
  ring()
  return outcome == "failed" and "probed" or "closed"
end

if asked_ms == 0 then
  if outcome ~= "failed" and (outcome == "other" or redis.call("EXISTS", KEYS[2]) == 0) then return "closed" end
  redis.call("HINCRBY", KEYS[2], outcome, 1)
  if redis.call("PTTL", KEYS[2]) < 0 then redis.call("PEXPIRE", KEYS[2], ARGV[6]) end
  local ok, failed = unpack(redis.call("HMGET", KEYS[2], "ok", "failed"))
  local calls = tonumber(ok or 0) + tonumber(failed or 0)
  if outcome ~= "failed" or calls < tonumber(ARGV[5]) or tonumber(failed) < tonumber(ARGV[4]) * calls then
    return "closed"
  end
end

local slot, taken, count, idle = circuit and circuit.slot, {}, 0, nil
local fields = redis.call("HGETALL", KEYS[1])
for i = 1, #fields, 2 do
  local other = read_circuit(fields[i], fields[i + 1])
  if other then
    taken[other.slot], count = true, count + 1
    if other.probe == "*" then idle = other end
  end
end
if not slot and count >= tonumber(ARGV[11]) then
  if not idle then return "closed" end
  redis.call("HDEL", KEYS[1], idle.field)
  slot = idle.slot
end
if not slot then
  slot = 0
  while taken[slot] do slot = slot + 1 end
end
redis.call("DEL", KEYS[2])
write_circuit(KEYS[1], { field = field, since = now, ends = asked_ms > 0 and asked_ms or now + wait_ms(1),
  token = string.match(redis.call("GET", KEYS[3]) or "", "^%d+$") or "0", times = 1, won = 0, probe = "",
  rest = string.format('"slot":%d,', slot) .. string.sub(ARGV[12], 2) })
ring()
return "opened"
