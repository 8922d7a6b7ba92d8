-- Fairness: the waiting messages of a live lane stand in a line for each tenant, which is the value of an argument, and the
-- tenant that was served least goes next. A message in a line is scheduled at FAIR (ms since the epoch, as a due time) plus
-- its turn; one that is there no longer is dropped from its line when it would be served. The turns of those that go before
-- their tenant's others are less than BEHIND.
-- A tenant's time is what it was given, a message counting 1 / weight. One that joins begins at the least time of those
-- that wait, or where it stopped.
local FAIR, BEHIND = 209000000000000, 500000000000

-- An argument's value in a body, as JSON that was cut where it is long, "null" for none. `fields` is the decoded body, nil
-- where nothing needed it yet: a number or a plain word that stands first in the call, as our senders write it, does not.
-- Returns the decoded body as well, where there is one.
local function value_of(body, fields, argument, position, default)
  local at = not fields and select(2, string.find(body, '^{"actor":"[^"\\]*","sent_at":%d+,'))
  local first = at and (position == 1 and string.match(body, '^"args":%[([^,%]]*)', at + 1)
    or string.match(body, '^"kwargs":{"' .. argument .. '":([^,}]*)', at + 1))
  if first and string.find(body, '"kwargs":', at + 2, true) then first = nil end
  if first and #first < 15 and string.find(first, '^[1-9]%d*$') then return first end
  if first and #first < 120 and string.find(first, '^"[%w_-]*"$') then return first end
  local value
  fields = fields or cjson.decode(body)
  if type(fields.kwargs) == "table" then value = fields.kwargs[argument] end
  if value == nil and position and type(fields.args) == "table" then value = fields.args[position] end
  if value == nil then value = default end
  local text = value == nil and "null" or cjson.encode(value)
  return #text > 120 and string.sub(text, 1, 60) .. " " .. redis.sha1hex(text) or text, fields
end

-- The actor of a body, and the decoded body where it was needed.
local function actor_of(body)
  local actor = string.match(body, '^{"actor":"([^"\\]*)"')
  if actor then return actor end
  local fields = cjson.decode(body)
  return fields.actor, fields
end

-- Operations on the lines of a lane, made where there are any: `fair` is its key of that name. An error where a key is of a
-- wrong type.
local function fairness_of(fair)
  local function key_of(name) return string.sub(fair, 1, -5) .. name end
  local lines, shares, spent, due = key_of("lines"), key_of("shares"), key_of("spent"), key_of("due")
  local declared, own = cjson.decode(redis.call("GET", fair)), {}
  local weights = type(declared.weights) == "table" and declared.weights or {}
  for _, key in ipairs({ lines, shares, spent, due }) do redis.call("ZCARD", key) end

  local function tenant_of(body)
    local read, tenant = pcall(function()
      local actor, fields = actor_of(body)
      return (value_of(body, fields, declared.argument, declared.positions[actor]))
    end)
    return read and tenant or "null"
  end

  local function step_of(tenant) return 1 / (tonumber(weights[tenant]) or 1) end
  local function least() return redis.call("ZRANGE", shares, 0, 0, "WITHSCORES")[2] end

  -- Put messages at the ends of their tenants' lines: ids, bodies and levels in the same order. With a turn less than BEHIND
  -- one goes before the others of its level, in the order of these turns.
  function own.line_up(ids, bodies, levels, early)
    if #ids == 0 then return end
    local turn = early and early - 1 or BEHIND + redis.call("INCRBY", key_of("turn"), #ids) - #ids
    local scored, members, joined, tenants = {}, {}, {}, {}
    for n, id in ipairs(ids) do
      local tenant = tenant_of(bodies[n])
      scored[2 * n - 1], scored[2 * n] = FAIR + turn + n, id
      members[2 * n - 1], members[2 * n] = 0, string.format("%s\n%d%015d\n%s", tenant, levels[n], turn + n, id)
      if not joined[tenant] then
        joined[tenant] = true
        tenants[#tenants + 1] = tenant
      end
    end
    local from, times = tonumber(least() or 0), {}
    for n, before in ipairs(redis.call("ZMSCORE", spent, unpack(tenants))) do
      times[2 * n - 1], times[2 * n] = math.max(from, tonumber(before or 0)), tenants[n]
    end
    redis.call("ZADD", shares, "NX", unpack(times))
    redis.call("ZADD", lines, unpack(members))
    redis.call("ZADD", due, unpack(scored))
  end

  -- Choose messages from the lines of the tenants that were served least, each tenant charged in turn: their members, ids and
  -- lines in the same order, and the lines that ended. A line is read some members at a time, with one more that shows
  -- whether it goes on. Most of a fair fetch's time goes by here: few tables and few strings.
  local function choose(count)
    local least_served, queue = redis.call("ZRANGE", shares, 0, count - 1, "WITHSCORES"), {}
    for n = 1, #least_served, 2 do
      local tenant, time = least_served[n], tonumber(least_served[n + 1])
      queue[#queue + 1] = { tenant = tenant, began = time, time = time, step = step_of(tenant), served = 0, at = 0 }
    end
    local first, last, members, ids, of, ended = 1, #queue, {}, {}, {}, {}
    -- From here on others may be served less.
    local until_time = last == count and queue[last].time or math.huge
    local some, chosen = last > 0 and math.ceil(count / last), 0
    while chosen < count and first <= last and queue[first].time <= until_time do
      local line = queue[first]
      local tenant, found, at = line.tenant, line.members, line.at + 1
      if not found or at > #found then
        local after = found and "(" .. found[#found] or "[" .. tenant .. "\n"
        found, at = redis.call("ZRANGEBYLEX", lines, after, "(" .. tenant .. "\11", "LIMIT", 0, some + 1), 1
        line.members = found
      end
      line.at, first = at, first + 1
      if found[at] then
        chosen = chosen + 1
        members[chosen], ids[chosen], of[chosen] = found[at], string.sub(found[at], #tenant + 19), line
      end
      if at >= #found and #found <= some then
        line.ended = true
        ended[#ended + 1] = line
      else
        line.time = line.time + line.step
        local place = last
        while place >= first and queue[place].time > line.time do
          queue[place + 1] = queue[place]
          place = place - 1
        end
        queue[place + 1], last = line, last + 1
      end
    end
    return members, ids, of, ended
  end

  -- Take up to `count` messages in the turns of their tenants, who are charged: returns ids, levels and tenants in the same
  -- order, fewer where no more wait, or where 500 lines or messages that have left them were dropped. They are in no place
  -- then.
  function own.take(count)
    local taken, levels, tenants, dropped = {}, {}, {}, 0
    while #taken < count and dropped < 500 do
      local members, ids, of, ended = choose(count - #taken)
      if #ids + #ended == 0 then break end
      local going, served = {}, {}
      for n, due_at in ipairs(#ids > 0 and redis.call("ZMSCORE", due, unpack(ids)) or {}) do
        -- Behind the tenant: a line's end, the level in one digit, the turn in fifteen, a line's end.
        local line, at = of[n], #of[n].tenant + 2
        if due_at and tonumber(due_at) - FAIR == tonumber(string.sub(members[n], at + 1, at + 15)) then
          going[#going + 1] = ids[n]
          local place = #taken + 1
          taken[place], levels[place], tenants[place] = ids[n], string.byte(members[n], at) - 48, line.tenant
          if line.served == 0 then served[#served + 1] = line end
          line.served = line.served + 1
        else
          dropped = dropped + 1
        end
      end
      if #members > 0 then redis.call("ZREM", lines, unpack(members)) end
      if #going > 0 then redis.call("ZREM", due, unpack(going)) end
      local times, names, stopped = {}, {}, {}
      for _, line in ipairs(served) do
        if not line.ended then
          times[#times + 1], times[#times + 2] = line.began + line.served * line.step, line.tenant
        end
      end
      if #times > 0 then redis.call("ZADD", shares, unpack(times)) end
      for n, line in ipairs(ended) do
        names[n], stopped[2 * n - 1], stopped[2 * n] = line.tenant, line.began + line.served * line.step, line.tenant
        if line.served == 0 then dropped = dropped + 1 end
      end
      if #ended > 0 then
        redis.call("ZREM", shares, unpack(names))
        redis.call("ZADD", spent, unpack(stopped))
      end
    end
    return taken, levels, tenants
  end

  -- Charge a tenant for messages that it was given, also one that stands in no line any more.
  function own.charge(tenant, count)
    local its = redis.call("ZSCORE", shares, tenant) and shares or spent
    redis.call("ZINCRBY", its, count * step_of(tenant), tenant)
  end

  -- Forget when those stopped whose time has passed, all where none waits: they would begin at the least one.
  function own.forget_past()
    local time = least()
    redis.call("ZREMRANGEBYSCORE", spent, "-inf", time and "(" .. time or "+inf")
  end

  -- The tenant of a body, as a name without spaces, and the time that a message of it counts.
  function own.share_of(body)
    local tenant = tenant_of(body)
    return string.sub(redis.sha1hex(tenant), 1, 16), step_of(tenant)
  end

  -- Whether messages stand in a line.
  function own.waits() return redis.call("ZCARD", shares) > 0 end
  return own
end
