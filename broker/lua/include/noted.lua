-- The notes of an id. A note that cannot be parsed counts as absent: an error in the middle of a script would leave a
-- message in no place.
local function level_of(id, notes)
  local level = tonumber(redis.call("HGET", notes, "level:" .. id) or 2)
  return (level == 1 or level == 3) and level or 2
end

-- "<crashes>", followed by " asked" when the cancellation was requested, and by ": <cause>" of the last crash.
local function crashes_of(id, notes)
  local crashed, asked = unpack(redis.call("HMGET", notes, "crash:" .. id, "asked:" .. id))
  local cause = string.match(crashed or "", "^%d+ %d+ (.+)$")
  return (string.match(crashed or "", "^%d+") or "0") .. (asked and " asked" or "") .. (cause and ": " .. cause or "")
end
