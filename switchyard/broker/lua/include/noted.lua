-- The notes of an id. A note that cannot be parsed counts as absent: an error in the middle of a script would leave a
-- message in no place.
local function level_of(id, notes)
  local level = tonumber(redis.call("HGET", notes, "level:" .. id) or 2)
  return (level == 1 or level == 3) and level or 2
end

-- The notes of an id's crashes: `crashes`, the times of the counted ones; `cause` of the last, or nil; `lapses`, nil
-- unless it is a lapse suspect: the counted ones, each "<time>@<host>".
-- The note: "<crashes> <time of the first> <cause>", a line break, "@<times> <lapses>". "-" is none, "+" a suspect
-- without a counted lapse.
local function history_of(id, notes)
  local found = { crashes = {} }
  local note = redis.call("HGET", notes, "crash:" .. id) or ""
  local since, cause, times, lapses = string.match(note, "^%d+ (%d+) (.*)\n@([%d,-]+) (%S+)$")
  if not since then return found end
  found.since, found.cause = since, cause ~= "" and cause or nil
  for ms in string.gmatch(times, "%d+") do table.insert(found.crashes, ms) end
  if lapses ~= "-" then
    found.lapses = {}
    for lapse in string.gmatch(lapses, "%d+@[^,]+") do table.insert(found.lapses, lapse) end
  end
  return found
end

local function note_history(id, notes, found, now)
  local times = #found.crashes > 0 and table.concat(found.crashes, ",") or "-"
  local lapses = found.lapses and (#found.lapses > 0 and table.concat(found.lapses, ",") or "+") or "-"
  local since = found.crashes[1] or found.since or string.format("%d", now)
  redis.call("HSET", notes, "crash:" .. id,
    #found.crashes .. " " .. since .. " " .. (found.cause or "alone") .. "\n@" .. times .. " " .. lapses)
end

-- Those of the times that are within a window before now; each begins with its milliseconds.
local function within(window_ms, times, now)
  local kept = {}
  for _, time in ipairs(times) do
    if now - tonumber(string.match(time, "^%d+")) <= tonumber(window_ms) then kept[#kept + 1] = time end
  end
  return kept
end

-- "<crashes>", followed by " suspect=<lapses>" ("+" for none) of a lapse suspect, by " asked" when the cancellation was
-- requested, and by ": <cause>" of the last crash.
local function crashes_of(id, notes)
  local crashed, asked = unpack(redis.call("HMGET", notes, "crash:" .. id, "asked:" .. id))
  if not crashed then return "0" .. (asked and " asked" or "") end
  local found = history_of(id, notes)
  local lapses = found.lapses and " suspect=" .. (#found.lapses > 0 and table.concat(found.lapses, ",") or "+") or ""
  return #found.crashes .. lapses .. (asked and " asked" or "") .. (found.cause and ": " .. found.cause or "")
end

-- Free the unique keys of leased ids that are held until their message starts: those that begin with byte 1.
local function free_started(ids, notes, unique)
  local names = {}
  for n, id in ipairs(ids) do names[n] = "key:" .. id end
  for n, key in ipairs(redis.call("HMGET", notes, unpack(names))) do
    if key and string.byte(key) == 1 then
      if redis.call("HGET", unique, key) == ids[n] then redis.call("HDEL", unique, key) end
      redis.call("HDEL", notes, names[n])
    end
  end
end
