#!lua flags=no-writes
-- job_read: read what one queue family knows of jobs.
-- KEYS[1] jobs: hash
-- KEYS[2] progress: hash
-- KEYS[3] ended: hash; buckets and kept records lie beside it
-- KEYS[4] bodies: hash
-- KEYS[5..7] due in the live, the retry and the alone lane: sorted sets
-- KEYS[8] dead letters: hash
-- KEYS[9] notes: hash
-- KEYS[10] quarantined bodies: hash
-- KEYS[11] purges: hash; what they set aside lies beside it
-- ARGV[1...] ids
-- Returns for each {live record, ended record, progress, body, dead letter, quarantined body, due time,
-- "cancelled" or "asked"}, "" for what is absent; or {} for an unknown id. A message that a purge has set aside is answered
-- as where it was. O(ids · purges).
--@include records

local first, last = buckets(unpack(redis.call("HMGET", KEYS[3], "first", "last")))
local purges = {}
for _, field in ipairs(redis.call("HKEYS", KEYS[11])) do
  if not string.find(field, ":", 1, true) then purges[#purges + 1] = field end
end

-- The body, live record, due time and note of a message that is set aside.
local function set_aside(id)
  for _, purge in ipairs(purges) do
    local function aside(name) return string.sub(KEYS[11], 1, -7) .. purge .. ":" .. name end
    local body = redis.call("HGET", aside("bodies"), id)
    if body then
      local due
      for n = 5, 7 do
        due = due or redis.call("ZSCORE", aside(string.sub(KEYS[n], #KEYS[11] - 11)), id)
      end
      local stop = redis.call("HEXISTS", aside("notes"), "cancel:" .. id) == 1 and "cancelled" or ""
      return body, redis.call("HGET", aside("jobs"), id), due, stop
    end
  end
end

local answers = {}
for at, id in ipairs(ARGV) do
  local live = redis.call("HGET", KEYS[1], id)
  local ended = redis.call("GET", beside(KEYS[3], "result:" .. id))
  local progress = redis.call("HGET", KEYS[2], id)
  for n = last, first, -1 do
    local bucket = beside(KEYS[3], "ended:" .. n)
    local record, done = unpack(redis.call("HMGET", bucket, id, id .. ":progress"))
    ended, progress = ended or record, progress or done
    if record then break end
  end
  local body = redis.call("HGET", KEYS[4], id)
  local letter = redis.call("HGET", KEYS[8], id)
  local quarantined = redis.call("HGET", KEYS[10], id)
  local due, stop = "", ""
  local aside_body, aside_live, aside_due, aside_stop
  -- One that has ended otherwise, or is dead again, was sent again since.
  local gone_on = body or letter or ended and not string.find(ended, "\164dead", 1, true)
  if #purges > 0 and not gone_on then aside_body, aside_live, aside_due, aside_stop = set_aside(id) end
  if live or ended or body or letter or quarantined or aside_body then
    if aside_body then
      body, live, due, stop = aside_body, live or aside_live, aside_due, aside_stop
    elseif body then
      due = redis.call("ZSCORE", KEYS[5], id) or redis.call("ZSCORE", KEYS[6], id) or redis.call("ZSCORE", KEYS[7], id)
      local asks = redis.call("HMGET", KEYS[9], "cancel:" .. id, "asked:" .. id)
      stop = asks[1] and "cancelled" or asks[2] and "asked" or ""
    elseif live then
      stop = redis.call("HEXISTS", KEYS[9], "asked:" .. id) == 1 and "asked" or ""
    end
    answers[at] = { live or "", ended or "", progress or "", body or "", letter or "", quarantined or "", due or "", stop }
  else
    answers[at] = {}
  end
end
return answers
