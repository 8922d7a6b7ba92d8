-- quarantine: take an unreadable message out of a queue that Dramatiq's Redis broker keeps, and keep it for a person.
-- KEYS[1] acks: set of the ids that the consumer holds
-- KEYS[2] messages: hash id -> body
-- KEYS[3] quarantine: list of JSON, newest first
-- ARGV[1] body as it was read
-- ARGV[2] entry for the quarantine, as JSON
-- Returns 1 when moved, 0 when no held message has that body. O(N) of what the consumer holds.

for _, id in ipairs(redis.call("SMEMBERS", KEYS[1])) do
  if redis.call("HGET", KEYS[2], id) == ARGV[1] then
    redis.call("SREM", KEYS[1], id)
    redis.call("HDEL", KEYS[2], id)
    redis.call("LPUSH", KEYS[3], ARGV[2])
    return 1
  end
end
return 0
