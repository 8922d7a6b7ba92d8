#!lua flags=allow-oom
-- job_write: record steps of jobs of one queue family, each unless a newer step of its job is recorded.
-- KEYS[1] jobs: hash
-- KEYS[2] progress: hash
-- KEYS[3] followed: sorted set
-- KEYS[4] ended: hash; buckets, kept records, marks and events lie beside it
-- KEYS[5] history: stream
-- KEYS[6] bodies: hash
-- KEYS[7] notes: hash
-- ARGV[1..3] ttl_ms of ended jobs, bytes of their records, bytes of the history
-- ARGV[4] ttl_ms of the events of a job that has not ended
-- ARGV[5] "1" when the broker finds waiting messages: a live record is written while the message is in the bodies
-- ARGV[6] rows for the history beside those of ARGV[10]: their number
-- ARGV[7] these rows, one after the other
-- ARGV[8] live steps
-- ARGV[9] ended steps that are kept for longer
-- ARGV[10] other ended steps whose record is a row as well; they come before those without one
-- ARGV[11..12] jobs that leave a mark of their end: their number, ttl_ms of the mark; their ids follow
-- ARGV[...] of each live step id, sequence, record; of each kept one id, ttl_ms, record; of others id, record
-- Returns for each live step 1 written, 0 late; for each other 1, 0 late, or -1 when the job was cancelled before. Rows are
-- added in any case. O(steps).
--@include now_ms
--@include records

local jobs, ended, found_by_id = KEYS[1], KEYS[4], ARGV[5] == "1"
local live, kept, answers, at = tonumber(ARGV[8]), tonumber(ARGV[9]), {}, 13 + ARGV[11]
-- Which keys exist, in one command: EXISTS counts a key as often as it is named.
local there = redis.call("EXISTS", KEYS[2], KEYS[3], KEYS[3], jobs, jobs, jobs, jobs)
local progresses, followed, lively = there % 2 == 1, there % 4 >= 2, there >= 4
local ending, others, running, over = {}, {}, {}, {}

local function is_followed(id)
  return followed and redis.call("ZSCORE", KEYS[3], id)
end

local function events_of(id)
  return beside(ended, id .. ":events")
end

-- Whether a job was cancelled before, where only its record says so.
local function cancelled(id, record)
  if found_by_id then return false end
  local known = redis.call("GET", beside(ended, "result:" .. id))
  if not known then return false end
  local _, _, state, _, _, generation = head_of(known)
  local _, _, new, _, _, life = head_of(record)
  return state == "cancelled" and new ~= "cancelled" and generation >= life
end

-- A record with the last failure of the one before, which a start does not know.
local function with_failure(record, known)
  local new, old = cmsgpack.unpack(record), cmsgpack.unpack(string.sub(known, 21))
  if new[2] ~= "running" or new[5] ~= old[5] or type(old[8]) ~= "table" then return record end
  local failure = cmsgpack.pack(old[8])
  local parts = { string.sub(record, 1, 1) }
  for n = 1, 13 do parts[n + 1] = n == 8 and failure or cmsgpack.pack(new[n]) end
  return table.concat(parts)
end

for n = 13, at - 1 do redis.call("SET", beside(ended, "mark:" .. ARGV[n]), "1", "PX", ARGV[12]) end

for _ = 1, live do
  local id, sequence, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local _, _, state = head_of(record)
  local waits = state == "queued" or state == "scheduled"
  local known = redis.call("HGET", jobs, id)
  if known and string.sub(known, 1, 20) > sequence then
    answers[#answers + 1] = 0
  elseif found_by_id and redis.call("HEXISTS", KEYS[6], id) == 0 then
    answers[#answers + 1] = 0
  elseif cancelled(id, record) then
    answers[#answers + 1] = -1
  else
    if not (found_by_id and waits) then
      redis.call("HSET", jobs, id, sequence .. (known and with_failure(record, known) or record))
    end
    if is_followed(id) then tell(events_of(id), record, false, ARGV[4]) end
    answers[#answers + 1] = 1
  end
  at = at + 3
end

for n = at, at + 3 * kept - 1, 3 do ending[#ending + 1] = ARGV[n] end
for n = at + 3 * kept, #ARGV, 2 do
  local id = ARGV[n]
  ending[#ending + 1] = id
  if not string.find(ARGV[n + 1], "\169succeeded", 1, true) then others[#others + 1] = id end
end
if #ending > 0 and (lively or live > 0) then
  for n, known in ipairs(redis.call("HMGET", jobs, unpack(ending))) do running[ending[n]] = known or nil end
end

-- Place of an end in its job's life, see switchyard/broker/stores/history_streams.py: a job that was not started ends as in its next attempt.
local function place_of(record)
  local _, _, _, _, attempt, generation, started, finished = head_of(record)
  return generation * 1048576 + math.min(started and attempt or attempt + 1, 100000) * 8 + 4, started or finished, finished
end

-- Whether a job was requeued, or lost its lease, and has gone on since: then this end comes late.
-- An end of an older time is of another job, whose id was sent again.
local function late(id, record)
  local known, ended_since = running[id], over[id]
  if not known and not ended_since then return false end
  local place, at_ms = place_of(record)
  if known and (tonumber(string.sub(known, 1, 20)) or 0) > place then
    local _, _, _, _, _, _, started = head_of(string.sub(known, 21))
    if not started or started >= at_ms then return true end
  end
  if not ended_since then return false end
  local place_since, _, finished = place_of(ended_since)
  return place_since > place and finished >= at_ms
end

local ids, fields, bytes, tellings = {}, {}, 0, {}
local function end_job(id, record)
  ids[#ids + 1] = id
  if is_followed(id) then tellings[#tellings + 1] = { id, record } end
  answers[#answers + 1] = 1
end

for _ = 1, kept do
  local id, ttl_ms, record = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if cancelled(id, record) then
    answers[#answers + 1] = -1
  elseif late(id, record) then
    answers[#answers + 1] = 0
  else
    redis.call("SET", beside(ended, "result:" .. id), record, "PX", ttl_ms)
    end_job(id, record)
  end
  at = at + 3
end

-- A success is recorded before its message is acknowledged: only after other ends may their job have ended again.
if #others > 0 then
  local first, last = buckets(unpack(redis.call("HMGET", ended, "first", "last")))
  for n = last, first, -1 do
    for k, known in ipairs(redis.call("HMGET", beside(ended, "ended:" .. n), unpack(others))) do
      over[others[k]] = over[others[k]] or known
    end
  end
end
for n = at, #ARGV, 2 do
  local id, record = ARGV[n], ARGV[n + 1]
  if cancelled(id, record) then
    answers[#answers + 1] = -1
  elseif late(id, record) then
    answers[#answers + 1] = 0
  else
    fields[#fields + 1], fields[#fields + 2] = id, record
    bytes = bytes + #id + #record + 64
    end_job(id, record)
    if not found_by_id then redis.call("HDEL", KEYS[7], "asked:" .. id) end
  end
end

if progresses and #ids > 0 then
  for n, progress in ipairs(redis.call("HMGET", KEYS[2], unpack(ids))) do
    if progress then
      fields[#fields + 1], fields[#fields + 2] = ids[n] .. ":progress", progress
      bytes = bytes + #ids[n] + #progress + 64
    end
  end
end
local count = tonumber(ARGV[6]) + tonumber(ARGV[10])
local array = count < 16 and string.char(144 + count) or string.char(220, math.floor(count / 256), count % 256)
local rows = { array, ARGV[7] }
for n = at + 1, at + 2 * tonumber(ARGV[10]) - 1, 2 do rows[#rows + 1] = ARGV[n] end
record_ended(ended, KEYS[5], fields, bytes, count, table.concat(rows), { ARGV[1], ARGV[2], ARGV[3] })
if next(running) and #ids > 0 then redis.call("HDEL", jobs, unpack(ids)) end
if progresses and #ids > 0 then redis.call("HDEL", KEYS[2], unpack(ids)) end
for _, telling in ipairs(tellings) do
  tell(events_of(telling[1]), telling[2], true, ARGV[1])
  redis.call("ZADD", KEYS[3], now_ms() + ARGV[1], telling[1])
end
return answers
