-- Pauses of actors. A message of a paused actor is put off: it is scheduled for the time at which that happened plus
-- PUT_OFF, an offset of more than 6,000 years, so that it is not due, and keeps its order for the end of the pause.
local PUT_OFF = 200000000000000
local LAST_PUT_OFF = PUT_OFF + 10000000000000 -- later ones are due times of senders
-- An open circuit is a pause with calls, of all actors that call a dependency. Its messages have a range of their own, so
-- that its next probe is found without a search: CIRCUITS, its slot times SPAN, and the ms since it opened.
local CIRCUITS, SPAN = PUT_OFF + 3000000000000, 10000000000
local LIMITS = PUT_OFF + 5000000000000 -- from here on a limit holds it, see limits.lua
local LINES = PUT_OFF + 9000000000000 -- and from here on it stands in a line, see fair.lua

-- A circuit's head, which changes, as a table with the `rest` of its text; nil for another pause. `times` is how often it
-- opened without a success between, 0 when it is closed and its messages go; `won` are probes that succeeded since; `probe`
-- is the id of the message that may start, "*" for the next one that comes.
local function read_circuit(field, text)
  local since, ends, token, times, won, probe, rest = string.match(text,
    '^{"since":(%d+),"until":(%d+),"token":(%d+),"times":(%d+),"won":(%d+),"probe":(".-"),("slot":.*)$')
  if not since then return nil end
  return { field = field, since = tonumber(since), ends = tonumber(ends), token = token, times = tonumber(times),
    won = tonumber(won), probe = cjson.decode("[" .. probe .. "]")[1], rest = rest,
    slot = tonumber(string.match(rest, '^"slot":(%d+)')) }
end

local function write_circuit(key, circuit)
  local head = string.format('{"since":%d,"until":%d,"token":%s,"times":%d,"won":%d,"probe":', circuit.since,
    circuit.ends, circuit.token, circuit.times, circuit.won)
  redis.call("HSET", key, circuit.field, head .. cjson.encode(circuit.probe) .. "," .. circuit.rest)
end

local function first_of(circuit) return CIRCUITS + circuit.slot * SPAN end

-- The pauses of a family: `by_actor` lists of those in force, `ends` when the first of them ends (nil for none), `over`
-- when the last one of those ended that still have messages to give back (nil for none), `circuits` those that are closed
-- or whose next probe is due, as it is where a clock that was ahead has opened one.
local function actor_pauses(key, now)
  local found = { by_actor = {}, circuits = {} }
  local fields = redis.call("HGETALL", key)
  local function add(actor, pause)
    found.by_actor[actor] = found.by_actor[actor] or {}
    table.insert(found.by_actor[actor], pause)
  end
  for i = 1, #fields, 2 do
    local read, pause = pcall(cjson.decode, fields[i + 1])
    if read and type(pause) == "table" and type(pause.actor) == "string" then
      local until_ms = tonumber(pause["until"]) or 0
      local circuit = type(pause.calls) == "table" and read_circuit(fields[i], fields[i + 1])
      if circuit then
        circuit.lease_ms = tonumber(pause.lease_ms) or 60000
        if circuit.since > now then circuit.since, circuit.ends, until_ms = now, now, now end
        if circuit.times == 0 or (until_ms > 0 and until_ms <= now) then table.insert(found.circuits, circuit) end
        if circuit.times > 0 then
          for actor, position in pairs(pause.calls) do
            add(actor, { argument = pause.argument, position = position, value = pause.value, circuit = circuit })
          end
        end
      elseif until_ms > 0 and until_ms <= now then
        found.over = math.max(found.over or 0, until_ms)
      else
        add(pause.actor, pause)
      end
      if until_ms > now then found.ends = math.min(found.ends or until_ms, until_ms) end
    end
  end
  return found
end

local function may_probe(circuit, id, now, key)
  if circuit.probe == "*" then
    circuit.probe, circuit.ends = id, now + circuit.lease_ms
    write_circuit(key, circuit)
  end
  return circuit.probe == id
end

local function find_pause(by_actor, body, id, now, key)
  -- As our senders write it. Another body, such as one with an escaped name, is decoded.
  local actor, fields = string.match(body, '^{"actor":"([^"\\]*)"'), nil
  if not actor then
    fields = cjson.decode(body)
    actor = fields.actor
  end
  for _, pause in ipairs(by_actor[actor] or {}) do
    local same = not pause.argument
    if not same then
      fields = fields or cjson.decode(body)
      local value
      if type(fields.kwargs) == "table" then value = fields.kwargs[pause.argument] end
      if value == nil and pause.position and type(fields.args) == "table" then value = fields.args[pause.position] end
      same = value == pause.value
    end
    if same and not pause.circuit then return PUT_OFF + now end
    if same and not may_probe(pause.circuit, id, now, key) then
      return first_of(pause.circuit) + math.min(math.max(now - pause.circuit.since, 0), SPAN - 1)
    end
  end
  return false
end

-- When a message is scheduled because a pause of `key` in force keeps it from starting, or false. A body that cannot be read
-- is its consumer's to set aside: an error here would leave the message in no place.
local function put_off_to(by_actor, body, id, now, key)
  local read, found = pcall(function() return find_pause(by_actor, body or "", id, now, key) end)
  return read and found
end
