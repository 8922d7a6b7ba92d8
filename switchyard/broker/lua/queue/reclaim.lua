#!lua flags=allow-oom
-- reclaim: delete an owner's lease, acknowledge the messages it finished, count a crash for those it was running, and
-- return all others to the head of their lane, oldest lease first. When the lease expired, supervisor and owner ended
-- together: what the owner ran becomes a lapse suspect, and a suspect that ran alone has this lapse counted.
-- KEYS[1] leases: sorted set
-- KEYS[2] hold of the owner: hash
-- KEYS[3] bodies: hash
-- KEYS[4..6] waiting, by priority: lists
-- KEYS[7] bell: list
-- KEYS[8..9] done: hashes
-- KEYS[10] notes: hash
-- KEYS[11] unique: hash
-- KEYS[12] hold of the keeper: hash
-- KEYS[13] token: string
-- KEYS[14] running: hash
-- ARGV[1] owner
-- ARGV[2] "lapsed" to do it only when its lease expired, else "now"
-- ARGV[3] keeper: owner that gets the running messages, under new tokens; with "", or one without a lease, they are
--   returned with the rest
-- ARGV[4] crash_window_ms: older crashes and lapses are not counted
-- ARGV[5] cause of the owner's end, recorded with the running messages; one that starts with "limit" counts no crash
-- ARGV[6] pairs: number of id, token pairs of finished messages that follow
-- ARGV[7...] those pairs, then the ids that were running; at most 500 arguments in all
-- Each message is in one place at any time; the next call completes one that did not finish.
-- Returns {returned, left, id, crashes, token, body, …}: number of returned messages, 1 when more calls are needed,
-- and the running ones and new suspects; token and body are empty unless the keeper holds it. Returns {-1, 0, …} when
-- the owner has no lease: with the messages that the keeper got from it by an earlier call, whose answer was lost.
-- O(messages held), at most 500 a call.
--@include now_ms
--@include put
--@include fair
--@include limits
--@include finish
--@include acked
--@include noted

local owner, keeper = ARGV[1], ARGV[3]
local now = now_ms()
-- Messages of a keeper without a lease would never be reclaimed.
if keeper ~= "" and tonumber(redis.call("ZSCORE", KEYS[1], keeper) or 0) == 0 then keeper = "" end
local hold, notes = KEYS[2], KEYS[10]
local limited = redis.call("EXISTS", string.sub(KEYS[3], 1, -7) .. "turns") == 1
local last_pair = 6 + 2 * tonumber(ARGV[6])
local answer = { 0, 0 }
local function name(id, count, token, body)
  local at = #answer
  answer[at + 1], answer[at + 2], answer[at + 3], answer[at + 4] = id, count, token, body
end

local function name_again(id)
  local token = keeper ~= "" and redis.call("HGET", KEYS[12], id)
  if token then
    name(id, #history_of(id, notes).crashes, token, redis.call("HGET", KEYS[3], id))
  end
end

local lease = redis.call("ZSCORE", KEYS[1], owner)
if not lease then
  answer[1] = -1
  for i = last_pair + 1, #ARGV do name_again(ARGV[i]) end
  return answer
end
if ARGV[2] == "lapsed" and tonumber(lease) > now then return { -1, 0 } end
redis.call("ZADD", KEYS[1], 0, owner) -- fenced: from now on it can neither fetch nor renew

local function held_by_age(first)
  local held, back = redis.call("HGETALL", hold), {}
  for n = 1, #held, 2 do
    if held[n] ~= "#" then back[#back + 1] = { held[n], tonumber(held[n + 1]) or 0 } end
  end
  table.sort(back, first)
  return back
end

-- Once an owner: a call that goes on finds a lease that is fenced already.
local function mark_suspects()
  local work = redis.call("HGET", KEYS[14], owner) or ""
  local oldest, alone, host, running = string.match(work, "^(%d+) ([01]) (%S+)(.*)$")
  if not oldest then return end
  local ran = {}
  for id in string.gmatch(running, "[^\n]+") do ran[id] = true end
  -- The messages that began since the last report are unknown: they are among the oldest leases, because a worker starts
  -- its messages in that order.
  for n, pair in ipairs(held_by_age(function(a, b) return a[2] < b[2] end)) do
    if n <= tonumber(oldest) or ran[pair[1]] then
      local history = history_of(pair[1], notes)
      local lapses = within(ARGV[4], history.lapses or {}, now)
      if history.lapses and alone == "1" then lapses[#lapses + 1] = string.format("%d", now) .. "@" .. host end
      history.lapses = lapses
      note_history(pair[1], notes, history, now)
      name(pair[1], #history.crashes, "", "")
    end
  end
end

acked(7, last_pair, hold, KEYS[3], KEYS[8], KEYS[9], notes, KEYS[11])
redis.call("HDEL", hold, "#")
if ARGV[2] == "lapsed" and tonumber(lease) > 0 then mark_suspects() end

for i = last_pair + 1, #ARGV do
  local id = ARGV[i]
  if redis.call("HEXISTS", hold, id) == 0 then
    name_again(id)
  else
    local history = history_of(id, notes)
    history.crashes, history.cause = within(ARGV[4], history.crashes, now), ARGV[5]
    if not string.match(ARGV[5], "^limit") then table.insert(history.crashes, string.format("%d", now)) end
    note_history(id, notes, history, now)
    local token, body = "", ""
    if keeper ~= "" then
      token = string.format("%d", redis.call("INCR", KEYS[13]))
      redis.call("HSET", KEYS[12], id, token)
      redis.call("HDEL", hold, id)
      body = redis.call("HGET", KEYS[3], id)
      if limited then pcall(limits_of(KEYS[3]).hand_over, id, keeper) end
    end
    name(id, #history.crashes, token, body)
  end
end

local back, returned = held_by_age(function(a, b) return a[2] > b[2] end), {}
for n = 1, math.min(#back, 500) do
  local id = back[n][1]
  redis.call("LPUSH", KEYS[3 + level_of(id, notes)], id)
  redis.call("HDEL", hold, id)
  answer[1] = answer[1] + 1
  returned[n] = id
end
if limited then pcall(limits_of(KEYS[3]).free, returned, false) end
notify(KEYS[7]) -- also when none was returned: the owner may have been the only one that waited for the next due time
if #back > 500 then
  answer[2] = 1
else
  redis.call("ZREM", KEYS[1], owner)
  redis.call("DEL", hold)
  redis.call("HDEL", KEYS[14], owner)
end
return answer
