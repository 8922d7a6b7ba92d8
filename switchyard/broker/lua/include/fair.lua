-- Fairness: the waiting messages of a live lane stand in a line for each tenant, which is the value of an argument, and the
-- tenant that was served least goes next. A message in a line is scheduled at FAIR (ms since the epoch, as a due time) plus
-- its turn; one that is there no longer is dropped from its line when it would be served. The turns of those that go before
-- their tenant's others are less than BEHIND.
-- A tenant's time is what it was given, a message counting 1 / weight. One that joins begins at the least time of those
-- that wait, or where it stopped.
local FAIR, BEHIND = 209000000000000, 500000000000

-- Operations on the lines of a lane, made where there are any: `fair` is its key of that name.
local function fairness_of(fair)
  local function key_of(name) return string.sub(fair, 1, -5) .. name end
  local lines, shares, spent = key_of("lines"), key_of("shares"), key_of("spent")
  local declared, own = cjson.decode(redis.call("GET", fair)), {}
  local weights = type(declared.weights) == "table" and declared.weights or {}

  local function read_tenant(body)
    local fields, value = cjson.decode(body), nil
    if type(fields.kwargs) == "table" then value = fields.kwargs[declared.argument] end
    local position = declared.positions[fields.actor]
    if value == nil and position and type(fields.args) == "table" then value = fields.args[position] end
    local text = value == nil and "null" or cjson.encode(value)
    return #text > 120 and string.sub(text, 1, 60) .. " " .. redis.sha1hex(text) or text
  end

  local function tenant_of(body)
    local read, tenant = pcall(read_tenant, body or "")
    return read and tenant or "null"
  end

  local function least() return redis.call("ZRANGE", shares, 0, 0, "WITHSCORES")[2] end

  -- Put messages at the ends of their tenants' lines: ids, bodies and levels in the same order. With a turn less than BEHIND
  -- one goes before the others of its level, in the order of these turns.
  function own.line_up(ids, bodies, levels, early)
    if #ids == 0 then return end
    local turn = early and early - 1 or BEHIND + redis.call("INCRBY", key_of("turn"), #ids) - #ids
    local scored, members, joined = {}, {}, {}
    for n, id in ipairs(ids) do
      local tenant = tenant_of(bodies[n])
      scored[2 * n - 1], scored[2 * n] = FAIR + turn + n, id
      members[2 * n - 1], members[2 * n] = 0, string.format("%s\n%d%015d\n%s", tenant, levels[n], turn + n, id)
      if not joined[tenant] then
        joined[tenant] = true
        local before = tonumber(redis.call("ZSCORE", spent, tenant) or 0)
        redis.call("ZADD", shares, "NX", string.format("%.17g", math.max(tonumber(least() or 0), before)), tenant)
      end
    end
    redis.call("ZADD", lines, unpack(members))
    redis.call("ZADD", key_of("due"), unpack(scored))
  end

  -- Take the next message of the tenant whose turn it is: returns its id, tenant and level, nil when none waits. It is in no
  -- place then. Of messages that have left their line at most 500 are dropped.
  function own.next()
    for _ = 1, 500 do
      local tenant, time = unpack(redis.call("ZRANGE", shares, 0, 0, "WITHSCORES"))
      if not tenant then return nil end
      local member = redis.call("ZRANGEBYLEX", lines, "[" .. tenant .. "\n", "(" .. tenant .. "\11", "LIMIT", 0, 1)[1]
      if member then
        local level, turn, id = string.match(string.sub(member, #tenant + 2), "^(%d)(%d+)\n(.*)$")
        redis.call("ZREM", lines, member)
        if id and tonumber(redis.call("ZSCORE", key_of("due"), id) or 0) == FAIR + tonumber(turn) then
          redis.call("ZREM", key_of("due"), id)
          return id, tenant, tonumber(level)
        end
      else
        redis.call("ZREM", shares, tenant)
        if redis.call("ZCARD", shares) == 0 then
          redis.call("ZREMRANGEBYSCORE", spent, "-inf", "+inf")
        else
          redis.call("ZADD", spent, time, tenant)
        end
      end
    end
    return nil
  end

  -- Charge a tenant for messages that it was given, also one that stands in no line any more.
  function own.charge(tenant, count)
    local its = redis.call("ZSCORE", shares, tenant) and shares or spent
    redis.call("ZINCRBY", its, string.format("%.17g", count / (tonumber(weights[tenant]) or 1)), tenant)
  end

  -- Forget when those stopped whose time has passed: they would begin at the least one.
  function own.forget_past()
    local time = least()
    if time then redis.call("ZREMRANGEBYSCORE", spent, "-inf", "(" .. time) end
  end

  -- The tenant of a body, as a name without spaces, and the time that a message of it counts.
  function own.share_of(body)
    local tenant = tenant_of(body)
    return string.sub(redis.sha1hex(tenant), 1, 16), 1 / (tonumber(weights[tenant]) or 1)
  end

  -- Whether messages stand in a line.
  function own.waits() return redis.call("ZCARD", shares) > 0 end
  return own
end
