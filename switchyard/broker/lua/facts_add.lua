-- facts_add: add counts to a bucket of facts, once however often the call is repeated.
-- KEYS[1] bucket: hash, field -> count
-- KEYS[2] flushed: string, number of the caller's last flush
-- ARGV[1] number of this flush, larger than that of the caller's flush before
-- ARGV[2] closes_ms: from this time on the bucket is not changed
-- ARGV[3] bucket_ttl_ms
-- ARGV[4] flushed_ttl_ms
-- ARGV[5...] field, count
-- Returns 1 when the counts are there, 0 when the bucket is closed. O(fields).
--@include now_ms

if tonumber(redis.call("GET", KEYS[2]) or 0) >= tonumber(ARGV[1]) then return 1 end
if now_ms() >= tonumber(ARGV[2]) then return 0 end
for i = 5, #ARGV, 2 do redis.call("HINCRBY", KEYS[1], ARGV[i], ARGV[i + 1]) end
redis.call("PEXPIRE", KEYS[1], ARGV[3])
redis.call("SET", KEYS[2], ARGV[1], "PX", ARGV[4])
return 1
