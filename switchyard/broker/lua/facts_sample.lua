-- facts_sample: put readings of counters that only grow, and of gauges, into a bucket of facts.
-- KEYS[1] bucket: hash, field -> count
-- KEYS[2] read: hash, counter -> its last reading; "#", present once there was a sample
-- ARGV[1] closes_ms: from this time on the bucket is not changed
-- ARGV[2] bucket_ttl_ms
-- ARGV[3] number of counters
-- ARGV[4...] of each counter: name, field, reading; then of each gauge: field, value
-- A counter adds to its field what it grew by since its last reading: nothing when it was reset, and nothing in the
-- first sample of all. A repeated call adds nothing.
-- Returns 1, or 0 when the bucket is closed. O(counters + gauges).
--@include now_ms

if now_ms() >= tonumber(ARGV[1]) then return 0 end
local last, known = 3 + 3 * tonumber(ARGV[3]), redis.call("EXISTS", KEYS[2]) == 1
for i = 4, last, 3 do
  local before = tonumber(redis.call("HGET", KEYS[2], ARGV[i]) or (known and 0 or ARGV[i + 2]))
  local reading = tonumber(ARGV[i + 2])
  if reading > before then redis.call("HINCRBY", KEYS[1], ARGV[i + 1], reading - before) end
  redis.call("HSET", KEYS[2], ARGV[i], ARGV[i + 2])
end
redis.call("HSET", KEYS[2], "#", ARGV[1])
for i = last + 1, #ARGV, 2 do redis.call("HSET", KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call("PEXPIRE", KEYS[1], ARGV[2])
return 1
