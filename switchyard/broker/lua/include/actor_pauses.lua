-- Pauses of actors. A message of a paused actor is put off: it is scheduled for the time at which that happened plus
-- PUT_OFF, an offset of more than 6,000 years, so that it is not due, and keeps its order for the end of the pause.
local PUT_OFF = 200000000000000
local LAST_PUT_OFF = PUT_OFF + 10000000000000 -- later ones are due times of senders

-- The pauses of a family: `by_actor` lists of those in force, `ends` when the first of them ends (nil for none), `over`
-- when the last one of those ended that still have messages to give back (nil for none).
local function actor_pauses(key, now)
  local found = { by_actor = {} }
  for _, text in ipairs(redis.call("HVALS", key)) do
    local read, pause = pcall(cjson.decode, text)
    if read and type(pause) == "table" and type(pause.actor) == "string" then
      local until_ms = tonumber(pause["until"]) or 0
      if until_ms > 0 and until_ms <= now then
        found.over = math.max(found.over or 0, until_ms)
      else
        found.by_actor[pause.actor] = found.by_actor[pause.actor] or {}
        table.insert(found.by_actor[pause.actor], pause)
        if until_ms > 0 then found.ends = math.min(found.ends or until_ms, until_ms) end
      end
    end
  end
  return found
end

local function find_pause(by_actor, body)
  -- As our senders write it. Another body, such as one with an escaped name, is decoded.
  local actor, fields = string.match(body, '^{"actor":"([^"\\]*)"'), nil
  if not actor then
    fields = cjson.decode(body)
    actor = fields.actor
  end
  for _, pause in ipairs(by_actor[actor] or {}) do
    if not pause.argument then return true end
    fields = fields or cjson.decode(body)
    local value
    if type(fields.kwargs) == "table" then value = fields.kwargs[pause.argument] end
    if value == nil and pause.position and type(fields.args) == "table" then value = fields.args[pause.position] end
    if value == pause.value then return true end
  end
  return false
end

-- Whether a pause in force keeps a message from starting. A body that cannot be read is its consumer's to set aside: an
-- error here would leave the message in no place.
local function is_paused(by_actor, body)
  local read, found = pcall(find_pause, by_actor, body or "")
  return read and found
end
