-- Since when a message waits for a limit, or in its tenant's line, as text: ms since the epoch, "" where that is not known.
local function since_of(waits, bodies, id)
  local since = string.match(redis.call("HGET", waits, id) or "", "^%d+ [123] (%d+) ")
  if since then return since end
  local read, body = pcall(cjson.decode, redis.call("HGET", bodies, id) or "")
  local options = read and type(body) == "table" and body.options
  local at = type(options) == "table" and (options.due_at or options.enqueued_at)
  return type(at) == "number" and string.format("%d", at) or ""
end
