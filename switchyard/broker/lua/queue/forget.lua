#!lua flags=allow-oom
-- forget: drop leased messages that were moved to another family, without recording them as finished.
-- KEYS[1] hold: hash
-- KEYS[2] bodies: hash
-- KEYS[3] notes: hash
-- KEYS[4] unique: hash
-- ARGV[1...] id, token, "1" when the other family knows that its cancellation was requested, else ""; at most 500
-- They may be enqueued here again. One whose token is stale, or that is repeated, changes nothing.
-- Returns the positions (1 …) of messages whose cancellation was requested meanwhile: they stay, until the other family
-- knows. O(messages).

--@include now_ms
--@include fair
--@include limits
--@include free_places

local asked, gone = {}, {}
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  local held = redis.call("HGET", KEYS[1], id) == ARGV[i + 1]
  if held and ARGV[i + 2] == "" and redis.call("HEXISTS", KEYS[3], "asked:" .. id) == 1 then
    asked[#asked + 1] = (i + 2) / 3
  elseif held then
    redis.call("HDEL", KEYS[1], id)
    redis.call("HDEL", KEYS[2], id)
    gone[#gone + 1] = id
    local key = redis.call("HGET", KEYS[3], "key:" .. id)
    if key and redis.call("HGET", KEYS[4], key) == id then redis.call("HDEL", KEYS[4], key) end
    redis.call("HDEL", KEYS[3], "key:" .. id, "level:" .. id, "crash:" .. id, "spent:" .. id, "asked:" .. id, "cancel:" .. id)
  end
end
free_places(KEYS[2], gone, true)
return asked
