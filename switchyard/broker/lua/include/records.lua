-- Keys beside the hash of ended jobs, in its family: buckets, kept records, events.
local function beside(ended, name)
  return string.sub(ended, 1, -6) .. name
end

-- The numbers of the first and the last bucket, as they were read. Others than those of some buckets in a row were written
-- by another hand, and none is known then: a loop over them would not end, and hold the server for ever.
local function buckets(first, last)
  first, last = tonumber(first) or 1, tonumber(last) or 0
  local few = first >= 1 and first <= last and last < first + 1000 and last < 1e9
  if few and first % 1 == 0 and last % 1 == 0 then return first, last end
  return 1, 0
end

-- Record ended jobs in the newest bucket, and attempts in the history's stream. Needs now_ms.
-- `ended` the hash of figures, `history` the stream; `fields` id, record, id, record, …; `bytes` their size;
-- `count` and `rows` of the history, 0 for none; `limits` ttl_ms, and bytes of records and of the history.
-- A bucket is full after an eighth of the budget, and old after a sixth of the time: 16 exist at most.
local function record_ended(ended, history, fields, bytes, count, rows, limits)
  local ttl_ms, budget, most = tonumber(limits[1]), tonumber(limits[2]), tonumber(limits[3])
  local found = redis.call("HMGET", ended, "first", "last", "at", "size", "bytes", "history")
  for n = 1, 6 do found[n] = tonumber(found[n] or 0) end
  local _, _, at, size, total, streamed = unpack(found)
  local first, last = buckets(found[1], found[2])
  if #fields > 0 then
    local now = now_ms()
    if last == 0 or size >= budget / 8 or now - at >= ttl_ms / 6 then
      if last > 0 then redis.call("HSET", ended, "size:" .. last, size) end
      first, last, at, size = math.max(first, 1), last + 1, now, 0
      while first < last and redis.call("EXISTS", beside(ended, "ended:" .. first)) == 0 do -- expired
        total = total - tonumber(redis.call("HGET", ended, "size:" .. first) or 0)
        redis.call("HDEL", ended, "size:" .. first)
        first = first + 1
      end
      redis.call("HSET", ended, "first", first, "last", last, "at", now)
    end
    local bucket = beside(ended, "ended:" .. last)
    redis.call("HSET", bucket, unpack(fields))
    if size == 0 then redis.call("PEXPIREAT", bucket, at + math.ceil(ttl_ms * 7 / 6)) end
    size, total = size + bytes, math.max(total + bytes, 0)
    while total > budget and first < last do
      redis.call("UNLINK", beside(ended, "ended:" .. first))
      total = total - tonumber(redis.call("HGET", ended, "size:" .. first) or 0)
      redis.call("HDEL", ended, "size:" .. first)
      first = first + 1
      redis.call("HSET", ended, "first", first)
    end
  end
  if count > 0 then
    redis.call("XADD", history, "*", "n", count, "rows", rows)
    streamed = streamed + #rows + 64
    while streamed > most do
      local oldest = redis.call("XRANGE", history, "-", "+", "COUNT", 1)[1]
      if not oldest then
        streamed = 0
        break
      end
      redis.call("XDEL", history, oldest[1])
      -- An entry of another hand may have any fields: an error here would end the step of a job in its middle.
      local number, packed = oldest[2][2], oldest[2][4] or ""
      redis.call("HINCRBY", ended, "dropped", #number < 7 and string.match(number, "^%d+$") or 1)
      streamed = math.max(streamed - #packed - 64, 0)
    end
  end
  redis.call("HSET", ended, "size", size, "bytes", total, "history", streamed)
end

-- The first fields of a record: an offset, id, state, reason, attempt, generation, start, end or next start, error.
-- Its rest may be binary, which cmsgpack cannot read.
local function head_of(record)
  return cmsgpack.unpack_limit(record, 8, string.byte(record) == 220 and 3 or 1)
end

-- Add a step to the events of a followed job.
local function tell(events, record, ends, kept_ms)
  local _, _, state, reason, attempt, _, _, at, failure = head_of(record)
  local event = { state = state, at = now_ms() }
  if attempt and attempt > 0 then event.attempts = attempt end
  if reason and reason ~= "" then event.reason = reason end
  if not ends and at then event.next_attempt_at = at end
  if failure then event.error = { type = failure[1], message = failure[2] } end
  local data = cjson.encode(event)
  redis.call("XADD", events, "MAXLEN", "~", 256, "*", "event", "state", "data", data)
  if ends then redis.call("XADD", events, "*", "event", "end", "data", data) end
  redis.call("PEXPIRE", events, kept_ms)
end
