#!lua
-- enqueue: put messages into a lane, each id once, however often the call is repeated.
-- KEYS[1] bodies: hash
-- KEYS[2..4] waiting, by priority: lists
-- KEYS[5] due: sorted set
-- KEYS[6] bell: list
-- KEYS[7..8] done: hashes
-- KEYS[9] dead letters: hash
-- KEYS[10] unique: hash
-- KEYS[11] notes: hash
-- KEYS[12] refused: string
-- KEYS[13] yields: hash
-- KEYS[14] stand_ins: hash
-- KEYS[15] sends: hash
-- KEYS[16...] windows of the unique keys that have one, in their order: strings
-- ARGV[1] limit: messages the lane may hold, waiting and scheduled; 0 for any number
-- ARGV[2] delay_ms
-- ARGV[3] level: 1 high, 2 normal, 3 low priority
-- ARGV[4] "1" when a unique key follows each body
-- ARGV[5...] id, body (and unique key, "" for none), at most 500 of them
-- A unique key is held until its message ends. One that begins with byte 1 is held until the message is leased; the byte
-- after it says what another send does to the message that holds it: "k" nothing, "r" replaces its body, "d" also makes it
-- due no earlier than delay_ms from now, if it is scheduled. Byte 2, ms and ":" before a key hold it for so many ms.
-- In a fair lane each waits in its tenant's line. A message for which another one stands is known for an hour: a repeated call
-- changes nothing, also when that one has started.
-- Returns for each message the id that stands for it: its own, or that of the message which holds its unique key; {} when
-- each stands for itself; or {"full", depth} with the depth as a number, when the lane has no room for all that are new:
-- then none is added. The error UNSAFE, with the reason, while nothing may be enqueued.
-- O(messages), and O(log scheduled) for each delayed one.
--@include now_ms
--@include put
--@include fair

local limit, delay_ms, level = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local keyed = ARGV[4] == "1"
local step = keyed and 3 or 2
-- Find which of five keys exist, in one command: EXISTS counts a key as often as it is named (1, 2, 4 and 8 times), so the
-- count's bits are the answers; the two that are named 8 times exist in few yards, and a second command tells which.
local d, l, r, f = KEYS[8], KEYS[9], KEYS[12], string.sub(KEYS[5], 1, -4) .. "fair"
local found = redis.call("EXISTS", KEYS[7], d, d, l, l, l, l, r, r, r, r, r, r, r, r, f, f, f, f, f, f, f, f)
if found >= 8 and redis.call("EXISTS", r) == 1 then return redis.error_reply("UNSAFE " .. redis.call("GET", r)) end
local remembered_0, remembered_1, buried, is_fair = found % 2 >= 1, found % 4 >= 2, found % 8 >= 4, found >= 8

local function known(id)
  return redis.call("HEXISTS", KEYS[1], id) == 1
    or remembered_0 and redis.call("HEXISTS", KEYS[7], id) == 1
    or remembered_1 and redis.call("HEXISTS", KEYS[8], id) == 1
    or buried and redis.call("HEXISTS", KEYS[9], id) == 1
end

-- Count a send that its key's holder stands for. Keep, for an hour from the first one of at
-- most 2,000, which message stands for it, and the last five that each stands for.
local function note_yield(id, holder, body)
  local actor = string.match(body, '^{"actor":"([^"\\]+)"') or "other"
  if redis.call("HEXISTS", KEYS[13], actor) == 0 and redis.call("HLEN", KEYS[13]) >= 500 then actor = "other" end
  redis.call("HINCRBY", KEYS[13], actor, 1)
  local fields = redis.call("HLEN", KEYS[14])
  if fields >= 2000 or redis.call("HGET", KEYS[14], id) == holder then return end
  local ids = { id }
  for each in string.gmatch(redis.call("HGET", KEYS[14], "for " .. holder) or "", "%S+") do
    if #ids < 5 then ids[#ids + 1] = each end
  end
  redis.call("HSET", KEYS[14], id, holder, "for " .. holder, table.concat(ids, " "))
  if fields == 0 then redis.call("PEXPIRE", KEYS[14], 3600000) end
end

-- Count new messages by actor, and by how much later they are due: in one command for successive ones of an actor. For one
-- message that takes 1.6 µs of the server's CPU.
local function note_sends(bodies, delay_ms)
  local later = delay_ms >= 60000 and "\n" .. math.floor(math.log(delay_ms / 60000) / math.log(2)) or ""
  local count = 0
  for n = 2, #bodies, 2 do
    local actor = string.match(bodies[n], '^{"actor":"([^"\\]+)"') or "other"
    count = count + 1
    if not bodies[n + 2] or string.sub(bodies[n + 2], 11, 11 + #actor) ~= actor .. '"' then
      local name = actor .. later
      if redis.call("HLEN", KEYS[15]) >= 1000 and redis.call("HEXISTS", KEYS[15], name) == 0 then name = "other" .. later end
      redis.call("HINCRBY", KEYS[15], name, count)
      count = 0
    end
  end
end

local new, standing, taken, for_others = {}, {}, {}, false
-- Of each argument with a unique key: the key without what another send does, that, and the number of its window.
local key_of, again_of, window_of, windows, changed
if keyed then key_of, again_of, window_of, windows, changed = {}, {}, {}, 15, {} end
for i = 5, #ARGV, step do
  local id, key, window = ARGV[i], keyed and ARGV[i + 2] or "", nil
  if key ~= "" then
    local policy = string.byte(key)
    if policy == 1 then
      again_of[i], key = string.sub(key, 2, 2), "\1" .. string.sub(key, 3)
    elseif policy == 2 then
      windows = windows + 1
      window, key = windows, "\2" .. string.match(key, "^\2%d+:(.*)$")
    end
    key_of[i], window_of[i] = key, window
  end
  local own = taken[id] or id
  standing[#standing + 1] = own
  for_others = for_others or own ~= id
  if not taken[id] and not known(id) then
    local yielded = key ~= "" and redis.call("HGET", KEYS[14], id)
    local holder = yielded or key ~= "" and (taken["key " .. key] or window and redis.call("GET", KEYS[window])
      or not window and redis.call("HGET", KEYS[10], key))
    taken[id] = holder or id
    if holder then
      standing[#standing] = holder
      for_others = for_others or holder ~= id
      if holder ~= id and not yielded then
        note_yield(id, holder, ARGV[i + 1])
        if again_of[i] then changed[#changed + 1] = { holder, again_of[i], ARGV[i + 1] } end
      end
    else
      if key ~= "" then taken["key " .. key] = id end
      new[#new + 1] = i
    end
  end
end

if limit > 0 and #new > 0 then
  local depth = redis.call("ZCARD", KEYS[5])
  for n = 2, 4 do depth = depth + redis.call("LLEN", KEYS[n]) end
  if depth + #new > limit then return { "full", depth } end
end

-- A member of a batch for which another message stands has ended, see note_end.
for n = 1, for_others and #standing or 0 do
  local id = ARGV[5 + step * (n - 1)]
  if standing[n] ~= id and string.byte(id, 15) == 56 and #id == 36 then
    redis.pcall("HSET", string.sub(KEYS[1], 1, -7) .. "ends", id, "done")
  end
end

-- Before the first of its writes: where a key of the lines is of a wrong type, nothing is added.
local at_once = {}
if #new > 0 and delay_ms <= 0 and is_fair then
  local texts, levels = {}, {}
  for n, i in ipairs(new) do at_once[n], texts[n], levels[n] = ARGV[i], ARGV[i + 1], level end
  fairness_of(f).line_up(at_once, texts, levels)
end
local bodies, ids = {}, {}
for n, i in ipairs(new) do
  local id = ARGV[i]
  ids[n], bodies[2 * n - 1], bodies[2 * n] = id, id, ARGV[i + 1]
  local window = keyed and window_of[i]
  if window then
    redis.call("SET", KEYS[window], id, "PX", string.match(ARGV[i + 2], "^\2(%d+)"))
  elseif keyed and key_of[i] then
    redis.call("HSET", KEYS[10], key_of[i], id)
    redis.call("HSET", KEYS[11], "key:" .. id, key_of[i])
  end
  if level ~= 2 then redis.call("HSET", KEYS[11], "level:" .. id, level) end
end
if #ids > 0 then
  redis.call("HSET", KEYS[1], unpack(bodies))
  note_sends(bodies, delay_ms)
end
if #at_once > 0 then
  notify(KEYS[6])
else
  put(ids, level, delay_ms > 0 and now_ms() + delay_ms, { KEYS[2], KEYS[3], KEYS[4] }, KEYS[5], KEYS[6])
end
-- Last: the message that holds a key may be one of this call. None is leased: it would not hold its key.
for n = 1, changed and #changed or 0 do
  local holder, again, body = unpack(changed[n])
  if again ~= "k" and redis.call("HEXISTS", KEYS[1], holder) == 1 then
    redis.call("HSET", KEYS[1], holder, body)
    local due_at = again == "d" and redis.call("ZSCORE", KEYS[5], holder)
    if due_at then redis.call("ZADD", KEYS[5], "XX", math.max(now_ms() + delay_ms, tonumber(due_at)), holder) end
  end
end
return for_others and standing or {}
