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
-- ARGV[1...] ids
-- Returns for each {live record, ended record, progress, body, dead letter, quarantined body, due time,
-- "cancelled" or "asked"}, "" for what is absent; or {} for an unknown id. O(ids).
--@include records

local first, last = unpack(redis.call("HMGET", KEYS[3], "first", "last"))
first, last = tonumber(first or 1), tonumber(last or 0)
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
  if live or ended or body or letter or quarantined then
    local due, stop = "", ""
    if body then
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
