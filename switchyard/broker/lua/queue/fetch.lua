#!lua flags=allow-oom
-- fetch: acknowledge finished messages, move due ones to their waiting lists, lease waiting ones.
-- KEYS[1] bodies: hash
-- KEYS[2..4] waiting, by priority: lists
-- KEYS[5] due: sorted set
-- KEYS[6] bell: list
-- KEYS[7] leases: sorted set
-- KEYS[8] hold: hash
-- KEYS[9] token: string
-- KEYS[10] paused: string
-- KEYS[11..12] done: hashes
-- KEYS[13] notes: hash
-- KEYS[14] unique: hash
-- KEYS[15] pauses of actors: hash
-- KEYS[16] limits: hash
-- KEYS[17] fair: string
-- ARGV[1] owner
-- ARGV[2] count: messages wanted, at most 500
-- ARGV[3] request: number of this fetch, grows with each of the owner's; the same number gets the same answer
-- ARGV[4] promote: due messages moved in one call, at most
-- ARGV[5...] id, token: acknowledged, at most 500 pairs
-- Returns {state, stale positions, next_due_in_ms (-1 none), left, id, token, crashes, body, …}, with " asked" behind the
-- crashes of a message whose cancellation was requested while it was leased, ": <cause>" with the cause of its last crash,
-- and with state "ok", "paused", "over" when the pause of an actor has ended, or an open circuit is to get its next probe,
-- and resume_actor is to be called, or "gone" when the owner has no lease: its name cannot be used again. A family that is
-- paused until a time, or has an actor that is, answers with next_due_in_ms when that ends, if nothing is due before: the
-- consumer fetches then.
-- A unique key that its message holds until it starts is free once it is leased.
-- A message of a paused actor is put off when it would be leased, and one that a limit holds, as many as are cancelled.
-- `left` is 1 when messages still wait. A body is nil when a foreign client put an id there without one; a finished id
-- that was put there again is dropped, and a cancelled one when it would be leased, at most about 500 of them in one call.
-- O(messages).
--@include now_ms
--@include put
--@include fair
--@include limits
--@include finish
--@include acked
--@include noted
--@include actor_pauses

local hold = KEYS[8]
local stale = acked(5, #ARGV, hold, KEYS[1], KEYS[11], KEYS[12], KEYS[13], KEYS[14])
local lease = redis.call("ZSCORE", KEYS[7], ARGV[1])
if not lease or tonumber(lease) == 0 then return { "gone", stale, -1, 0 } end

local levels = { KEYS[2], KEYS[3], KEYS[4] }
local now
local answer = { "ok", stale, -1, 0 }
-- Most of the time neither queue nor actor is paused, and there are no notes, no scheduled messages and none of high or low
-- priority.
local rare = redis.call("EXISTS", KEYS[10], KEYS[13], KEYS[2], KEYS[4], KEYS[5], KEYS[15], KEYS[16], KEYS[17]) > 0
local noted = rare and redis.call("EXISTS", KEYS[13]) == 1
local function grant(ids, tokens, bodies)
  local crashes = {}
  if noted then
    for n, id in ipairs(ids) do crashes[n] = crashes_of(id, KEYS[13]) end
  end
  for n, id in ipairs(ids) do
    local at = #answer
    answer[at + 1], answer[at + 2], answer[at + 3], answer[at + 4] = id, tokens[n], crashes[n] or "0", bodies[n]
  end
end

local function say_next_due()
  local head = redis.call("ZRANGE", KEYS[5], 0, 0, "WITHSCORES")
  now = now or now_ms()
  if #head > 0 then answer[3] = math.max(tonumber(head[2]) - now, 0) end
  return answer[3] == 0
end

local fair
local function say_left()
  if fair and fair.waits() then
    answer[4] = 1
    notify(KEYS[6])
    return
  end
  for _, list in ipairs(levels) do
    if redis.call("LLEN", list) > 0 then
      answer[4] = 1
      notify(KEYS[6])
      break
    end
  end
end

local request, first, count = string.match(redis.call("HGET", hold, "#") or "", "^(%d+) (%d+) (%d+)$")
if rare and redis.call("EXISTS", KEYS[17]) == 1 then fair = fairness_of(KEYS[17]) end
if request == ARGV[3] then -- the reply was lost
  local held = redis.call("HGETALL", hold)
  local again = {}
  for n = 1, #held, 2 do
    local token = tonumber(held[n + 1])
    if token and token >= tonumber(first) and token < tonumber(first) + tonumber(count) then
      again[#again + 1] = { held[n], token }
    end
  end
  table.sort(again, function(a, b) return a[2] < b[2] end)
  local ids, tokens = {}, {}
  for n, pair in ipairs(again) do ids[n], tokens[n] = pair[1], tostring(pair[2]) end
  if #ids > 0 then
    grant(ids, tokens, redis.call("HMGET", KEYS[1], unpack(ids)))
    say_next_due()
    say_left()
    return answer
  end
end

if rare and redis.call("EXISTS", KEYS[10]) == 1 then
  answer[1] = "paused"
  local left_ms = redis.call("PTTL", KEYS[10])
  if left_ms >= 0 then answer[3] = left_ms + 1 end
  return answer
end

local pauses = rare and redis.call("EXISTS", KEYS[15]) == 1 and actor_pauses(KEYS[15], now_ms())
if pauses and (pauses.over or #pauses.circuits > 0) then
  answer[1], answer[3], answer[4] = "over", 0, 1
  return answer
end
local by_actor = pauses and next(pauses.by_actor) and pauses.by_actor

if rare and say_next_due() then
  local due = redis.call("ZRANGEBYSCORE", KEYS[5], "-inf", now, "LIMIT", 0, ARGV[4])
  redis.call("ZREM", KEYS[5], unpack(due))
  if fair then
    local its = {}
    for n, id in ipairs(due) do its[n] = noted and level_of(id, KEYS[13]) or 2 end
    fair.line_up(due, redis.call("HMGET", KEYS[1], unpack(due)), its)
  elseif noted then
    for _, id in ipairs(due) do
      redis.call("RPUSH", levels[level_of(id, KEYS[13])], id)
    end
  else
    redis.call("RPUSH", levels[2], unpack(due))
  end
  answer[3] = -1
  say_next_due()
end

local limits, lane = rare and redis.call("HLEN", KEYS[16]) > 0 and limits_of(KEYS[1]), nil
if limits then
  -- A key of a wrong type ends the script here, and nothing is taken.
  lane = string.sub(KEYS[3], #KEYS[1] - 5)
  limits.check(lane)
end
local ids, wanted, dropped = {}, tonumber(ARGV[2]), 0
local bodies_of = {}
-- Whether a message that was taken from its place is to be leased; else it is put off, or dropped.
local function is_wanted(id, level)
  if noted and redis.call("HEXISTS", KEYS[13], "cancel:" .. id) == 1 then
    if limits then limits.flush() end -- what ends here passes its places on, and counts those that are taken
    finish({ id }, { "cancel" }, nil, KEYS[1], KEYS[11], KEYS[12], KEYS[13], KEYS[14])
    return false
  end
  local body = bodies_of[id]
  now = now or by_actor and now_ms()
  -- Its limits first: what is put off before it has its turn would lose its place in a sequence.
  if limits and not limits.admit(id, body, level, lane, ARGV[1]) then return false end
  local due_at = by_actor and put_off_to(by_actor, body, id, now, KEYS[15])
  if not due_at then return true end
  redis.call("ZADD", KEYS[5], due_at, id)
  if limits then limits.free({ id }, false) end
  return false
end

local is_any_wanted = not (noted or by_actor or limits)
-- Read at once what decides which of some ids are to be leased.
local function read_about(some)
  if is_any_wanted then return end
  for n, body in ipairs(redis.call("HMGET", KEYS[1], unpack(some))) do bodies_of[some[n]] = body end
  if limits then limits.read(some) end
end

for level, list in ipairs(rare and levels or { levels[2] }) do
  while #ids < wanted and dropped < 500 do
    local popped = redis.call("LPOP", list, wanted - #ids)
    if not popped then break end
    read_about(popped)
    for _, id in ipairs(popped) do
      if is_any_wanted or is_wanted(id, level) then
        ids[#ids + 1] = id
      else
        dropped = dropped + 1
      end
    end
  end
end
-- Of a tenant with many messages that a limit holds, those from the 21st on are turns in this call: they must not keep others
-- from theirs.
local PUT_OFF_AT_ONCE, put_off = 20, {}
while fair and #ids < wanted and dropped < 500 do
  local taken, its_levels, tenants = fair.take(wanted - #ids)
  if #taken == 0 then break end
  read_about(taken)
  for n, id in ipairs(taken) do
    if is_any_wanted or is_wanted(id, its_levels[n]) then
      ids[#ids + 1] = id
    else
      local tenant = tenants[n]
      dropped, put_off[tenant] = dropped + 1, (put_off[tenant] or 0) + 1
      if put_off[tenant] <= PUT_OFF_AT_ONCE then fair.charge(tenant, -1) end
    end
  end
end
for tenant, count in pairs(put_off) do
  if count > PUT_OFF_AT_ONCE then fair.charge(tenant, PUT_OFF_AT_ONCE - count) end
end
if fair then fair.forget_past() end
if limits then limits.flush() end

local full = #ids == wanted or dropped >= 500 or fair and fair.waits()
local bodies = {}
if #ids > 0 then
  -- An id may have been put there by hand: one that is finished, or held by this owner, is not leased again.
  local texts, mine = is_any_wanted and redis.call("HMGET", KEYS[1], unpack(ids)), redis.call("HMGET", hold, unpack(ids))
  local fresh, seen = {}, {}
  for n, id in ipairs(ids) do
    local body
    if texts then body = texts[n] else body = bodies_of[id] end
    if not seen[id] and not mine[n] and (body or not ended_by(id, KEYS[11], KEYS[12])) then
      seen[id] = true
      fresh[#fresh + 1], bodies[#bodies + 1] = id, body
    end
  end
  ids = fresh
end
if #ids > 0 then
  local last = redis.call("INCRBY", KEYS[9], #ids)
  local tokens, leased = {}, { "#", ARGV[3] .. " " .. string.format("%d", last - #ids + 1) .. " " .. #ids }
  for n, id in ipairs(ids) do
    tokens[n] = string.format("%d", last - #ids + n)
    leased[#leased + 1], leased[#leased + 2] = id, tokens[n]
  end
  redis.call("HSET", hold, unpack(leased))
  if noted then free_started(ids, KEYS[13], KEYS[14]) end
  grant(ids, tokens, bodies)
end
if full then say_left() end
if pauses and pauses.ends then
  local left_ms = math.max(pauses.ends - (now or now_ms()), 0) + 1
  if answer[3] < 0 or left_ms < answer[3] then answer[3] = left_ms end
end
return answer
