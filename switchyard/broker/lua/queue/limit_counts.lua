#!lua flags=allow-oom
-- limit_counts: count what the limits of a family, and the tenants of its fair lane, hold back; without their keys.
-- KEYS[1] limits: hash
-- KEYS[2] turns: sorted set
-- KEYS[3] waits: hash
-- KEYS[4] bodies: hash
-- KEYS[5..6] fair, shares of the live lane: string, sorted set
-- KEYS[7] due in the live lane: sorted set
-- Reads only. Returns for each limit {kind, actor, argument, n, override as JSON, keys, members with a place, members that
-- wait, since when the next of them waits (ms since the epoch), "" where that is not known}. O(limits · log members).
--@include since_of

local fields, rows = redis.call("HGETALL", KEYS[1]), {}
local function count_limit(actor, limit)
  local kind, argument = limit.ordered and "order" or "concurrency", tostring(limit.argument or "")
  local name = (limit.ordered and "o " or "c ") .. actor .. (argument == "" and "" or " " .. argument)
  local low, high = "[" .. name .. "\n", "(" .. name .. "\11"
  if argument ~= "" then low, high = "[" .. name .. "=", "(" .. name .. ">" end
  local all = redis.call("ZLEXCOUNT", KEYS[2], low, high)
  local waiting = math.min(tonumber(redis.call("HGET", KEYS[3], "#" .. name) or 0), all)
  local first = argument == "" and redis.call("ZRANGEBYLEX", KEYS[2], "[" .. name .. "\nw", high, "LIMIT", 0, 1)[1]
  local since = first and since_of(KEYS[3], KEYS[4], string.match(first, "\n([^\n]*)$")) or ""
  local other = redis.call("HGET", KEYS[1], "\n" .. name) or ""
  rows[#rows + 1] = { kind, actor, argument, tostring(limit.n), other, "", all - waiting, waiting, since }
end

for n = 1, #fields, 2 do
  local read, limits = pcall(cjson.decode, fields[n + 1])
  if read and type(limits) == "table" and string.sub(fields[n], 1, 1) ~= "\n" then
    for _, limit in ipairs(limits) do
      if type(limit) == "table" then count_limit(fields[n], limit) end
    end
  end
end
local read, fair = pcall(cjson.decode, redis.call("GET", KEYS[5]) or "")
if read and type(fair) == "table" then
  local FAIR, LAST = 209000000000000, 210000000000000
  local first = redis.call("ZRANGEBYSCORE", KEYS[7], FAIR, LAST, "LIMIT", 0, 1)[1]
  local since = first and since_of(KEYS[3], KEYS[4], first) or ""
  rows[#rows + 1] = { "fair_share", "", tostring(fair.argument), "0", "", redis.call("ZCARD", KEYS[6]), 0,
    redis.call("ZCOUNT", KEYS[7], FAIR, LAST), since }
end
return rows
