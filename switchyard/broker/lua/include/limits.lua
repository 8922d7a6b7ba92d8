-- Limits by key: at most n messages of a key run at once, or one at a time and in sequence. A key is an actor, or an actor
-- with the value of an argument: "c send customer_id=7", with "o " before one whose messages keep their sequence.
-- A message has a place of each of its keys from its lease on until it leaves its owner, whatever ends that; a place that
-- keeps a sequence is kept until the message has ended. One that finds no place is scheduled beyond every due time, and
-- gets the next free one in its turn: it goes to the head of its lane, behind those that got theirs before it, where the
-- next fetch leases it; in a fair lane to the head of its tenant's line.
-- Those of a family whose live lane is fair, retries too, wait in the turns of their tenants: one of a tenant of which n wait
-- for the key stands n turns behind the first. Its tag is the turn by which it goes on.
-- Keys of the family: `limits`, `slots`, `waits`, `turns`, see keys.py. Needs now_ms and fair.
-- A message waits for a limit at WAITING or IN_ORDER (ms since the epoch, as a due time) plus its turn.
local WAITING, IN_ORDER = 205000000000000, 208000000000000

-- Operations on the limits of a family, made where there are any: `sixth` is one of its keys with a name of six letters.
local function limits_of(sixth)
  local function key_of(name) return string.sub(sixth, 1, -7) .. name end
  local slots, waits, turns = key_of("slots"), key_of("waits"), key_of("turns")
  local own, declared, overridden, behind, fairs, rung, now = {}, {}, {}, {}, {}, {}, nil

  -- Of this call: places by key, those that are taken and not written yet, with their members and texts, and what was read
  -- of ids that may be leased.
  local counted, taken, members, texts, read_before = {}, {}, {}, {}, {}

  local function keeps_order(key) return string.byte(key) == 111 end -- o
  local function count(key)
    counted[key] = counted[key] or redis.call("ZLEXCOUNT", turns, "[" .. key .. "\nh\n", "(" .. key .. "\nh\11")
    return counted[key] + (taken[key] or 0)
  end
  local function waiting(key, most)
    return redis.call("ZRANGEBYLEX", turns, "[" .. key .. "\nw", "(" .. key .. "\nx", "LIMIT", 0, most)
  end

  local function fairness(lane)
    local fair = key_of(lane .. ".fair")
    if fairs[lane] == nil then fairs[lane] = redis.call("EXISTS", fair) == 1 and fairness_of(fair) end
    return fairs[lane]
  end

  -- The limit that a key is of: "c send customer_id" of "c send customer_id=7".
  local function limit_of(key) return string.match(key, "^(. %S+ [^=]+)=") or key end

  -- Whether all places of a key, {n, key}, are taken. An override of its limit counts until its time.
  local function full(each)
    local limit = each.limit or limit_of(each.key)
    if overridden[limit] == nil then
      local text = redis.call("HGET", key_of("limits"), "\n" .. limit)
      local n, ends = string.match(text or "", '^{"n":(%d+),"until":(%d+)')
      now = now or n and now_ms()
      overridden[limit] = n and tonumber(ends) > now and tonumber(n) or false
    end
    return count(each.key) >= (overridden[limit] or each.n)
  end

  local function live_of(lane) return string.match(lane, "^(.*)%-retry$") or string.match(lane, "^(.*)%-alone$") or lane end

  -- Raise an error where a key is of a wrong type, also one of the lines where a message of a lane would wait.
  function own.check(lane)
    redis.call("HLEN", slots)
    redis.call("HLEN", waits)
    redis.call("ZCARD", turns)
    fairness(live_of(lane))
  end

  -- The keys of a body, {n, key, limit} each, one that keeps the sequence first; nil when its actor has no limit.
  local function keys_of(body)
    local actor, fields = actor_of(body)
    if declared[actor] == nil then
      local text = redis.call("HGET", key_of("limits"), actor)
      local limits = text and cjson.decode(text)
      for _, limit in ipairs(limits or {}) do
        limit.name = (limit.ordered and "o " or "c ") .. actor .. (limit.argument and " " .. limit.argument or "")
      end
      declared[actor] = limits
    end
    if not declared[actor] then return nil end
    local found = {}
    for n, limit in ipairs(declared[actor]) do
      local key, text = limit.name, nil
      if limit.argument then
        text, fields = value_of(body, fields, limit.argument, limit.position, limit.default)
        key = key .. "=" .. text
      end
      found[n] = { n = tonumber(limit.n), key = key, limit = limit.name }
    end
    return found
  end

  local function member_of(wait, id)
    local key = wait.keys[wait.at].key
    local tag = wait.tag and string.format("%015d", wait.tag) or ""
    return string.format("%s\nw%d%s%015d\n%s", key, keeps_order(key) and 2 or wait.level, tag, wait.turn, id)
  end

  -- Count one more, or less, of a tenant's that wait for a key; returns how many do then.
  local function count_share(wait, more)
    local name = "#" .. wait.share .. "\n" .. wait.keys[wait.at].key
    local left = redis.call("HINCRBY", waits, name, more)
    if left <= 0 then redis.call("HDEL", waits, name) end
    return left
  end

  local function wait_in(text)
    if not text then return nil end
    local turn, level, since, at, lane, rest = string.match(text, "^(%d+) ([123]) (%d+) (%d+) (%S+)(.*)$")
    if not turn then return nil end
    local wait = { turn = tonumber(turn), level = tonumber(level), since = since, at = tonumber(at), keys = {} }
    local name, tag, share, step = string.match(lane, "^([^:]+):(%d*):(%x+):(%S+)$")
    wait.lane, wait.tag, wait.share, wait.step = name or lane, tonumber(tag), share, step
    for n, key in string.gmatch(rest, "\n(%d+) ([^\n]+)") do wait.keys[#wait.keys + 1] = { n = tonumber(n), key = key } end
    return wait.keys[wait.at] and wait or nil
  end

  local function read_wait(id) return wait_in(redis.call("HGET", waits, id)) end

  local function write_wait(id, wait)
    local lane, key = wait.lane, wait.keys[wait.at].key
    if wait.share and keeps_order(key) then
      wait.tag = nil
    elseif wait.share then
      local before = string.format("%s\nw%d", key, wait.level)
      local first = redis.call("ZRANGEBYLEX", turns, "[" .. before, "(" .. before .. "\255", "LIMIT", 0, 1)[1]
      local behind_it = math.floor((count_share(wait, 1) - 1) * wait.step)
      wait.tag = wait.tag or (tonumber(string.sub(first or "", #before + 1, #before + 15)) or wait.turn) + behind_it
    end
    if wait.share then lane = string.format("%s:%s:%s:%s", lane, wait.tag or "", wait.share, wait.step) end
    local lines = { string.format("%d %d %s %d %s", wait.turn, wait.level, wait.since, wait.at, lane) }
    for _, each in ipairs(wait.keys) do lines[#lines + 1] = each.n .. " " .. each.key end
    redis.call("HSET", waits, id, table.concat(lines, "\n"))
    redis.call("ZADD", turns, 0, member_of(wait, id))
    redis.call("HINCRBY", waits, "#" .. limit_of(wait.keys[wait.at].key), 1)
    local first = keeps_order(wait.keys[wait.at].key) and IN_ORDER or WAITING
    redis.call("ZADD", key_of(wait.lane .. ".due"), first + wait.turn, id)
  end

  local function stop_waiting(id, wait)
    redis.call("ZREM", turns, member_of(wait, id))
    local counted = "#" .. limit_of(wait.keys[wait.at].key)
    local gone = redis.call("HDEL", waits, id) == 1
    if gone and wait.tag then count_share(wait, -1) end
    if gone and redis.call("HINCRBY", waits, counted, -1) < 0 then redis.call("HSET", waits, counted, 0) end
  end

  -- Places in a text, as a set of keys, and their state: "held", "next", "kept", or "" for none.
  local function places_in(text)
    local found = {}
    if not text then return found, "" end
    for key in string.gmatch(text, "\n([^\n]+)") do found[key] = true end
    return found, string.match(text, "^%l*")
  end

  local function places(id) return places_in(redis.call("HGET", slots, id)) end

  local function places_text(state, where, keys)
    now = now or now_ms()
    return string.format("%s %d %s\n%s", state, now, where, table.concat(keys, "\n"))
  end

  -- Write the places of an id: "held" by an owner, "next" in a list, or "kept" while it waits.
  local function write_places(id, state, where, keys)
    for _, key in ipairs(keys) do
      local added = redis.call("ZADD", turns, 0, key .. "\nh\n" .. id)
      counted[key] = counted[key] and counted[key] + added
    end
    redis.call("HSET", slots, id, places_text(state, where, keys))
  end

  local function leave_place(id, key)
    local gone = redis.call("ZREM", turns, key .. "\nh\n" .. id)
    counted[key] = counted[key] and counted[key] - gone
  end

  -- Call a function with words in chunks that Lua's stack has room for; returns all values that it returns, as lists.
  local function in_chunks(words, call)
    local found = {}
    for n = 1, #words, 1000 do
      local values = call(unpack(words, n, math.min(n + 999, #words)))
      for _, value in ipairs(type(values) == "table" and values or {}) do found[#found + 1] = value end
    end
    return found
  end

  -- Write the places that `admit` has given.
  function own.flush()
    in_chunks(members, function(...) redis.call("ZADD", turns, ...) end)
    in_chunks(texts, function(...) redis.call("HSET", slots, ...) end)
    counted, taken, members, texts = {}, {}, {}, {}
  end

  local function names(keys)
    local found = {}
    for n, each in ipairs(keys) do found[n] = each.key end
    return found
  end

  -- Put an id at the head of a list, behind those there that were passed on before it; false where it is no list.
  local function put_next(list, id)
    local after = behind[list]
    for _, most in ipairs(after and {} or { 20, 500 }) do
      local head, last = redis.pcall("LRANGE", list, 0, most - 1), 0
      if head.err then return false end
      for n, text in ipairs(#head > 0 and redis.call("HMGET", slots, unpack(head)) or {}) do
        if text and string.sub(text, 1, 4) == "next" then last = n end
      end
      after = head[last]
      if last < most then break end
    end
    if not after or redis.call("LINSERT", list, "AFTER", after, id) < 1 then redis.call("LPUSH", list, id) end
    behind[list] = id
    return true
  end

  -- Give the free places of a key to those that wait for it, in turn; with `other_than`, to those of other lanes.
  function own.pass_on(key, other_than)
    for _ = 1, 200 do
      local member, id, wait
      local first = waiting(key, other_than and 50 or 1)
      for _, each in ipairs(first) do
        local its = string.match(each, "\n([^\n]*)$")
        local read = read_wait(its)
        if not read or member_of(read, its) ~= each then
          redis.call("ZREM", turns, each)
        elseif read.lane ~= other_than then
          member, id, wait = each, its, read
          break
        end
      end
      if not member then
        if other_than or #first == 0 then return end
      elseif full(wait.keys[wait.at]) then
        return
      else
        local due_at = tonumber(redis.call("ZSCORE", key_of(wait.lane .. ".due"), id) or 0)
        if due_at < WAITING then -- made due, or gone: its fetch decides
          if keeps_order(key) and redis.call("HEXISTS", key_of("bodies"), id) == 1 then return end
          stop_waiting(id, wait)
        else
          local has, blocked = places(id), nil
          for at, each in ipairs(wait.keys) do
            if at ~= wait.at and not has[each.key] and full(each) then blocked = blocked or at end
          end
          if blocked then -- for another of its keys; it never waits with a place that others could use
            stop_waiting(id, wait)
            if keeps_order(key) then write_places(id, "kept", "-", { key }) end
            wait.at, wait.tag = blocked, nil
            write_wait(id, wait)
          else
            local level = wait.level == 1 and ".high" or wait.level == 3 and ".low" or ""
            local fair = fairness(wait.lane)
            -- To its new place first; a list of a wrong type keeps it where it is.
            if fair then
              fair.line_up({ id }, { redis.call("HGET", key_of("bodies"), id) }, { wait.level }, wait.turn)
            elseif put_next(key_of(wait.lane .. level), id) then
              redis.call("ZREM", key_of(wait.lane .. ".due"), id)
            else
              return
            end
            stop_waiting(id, wait)
            write_places(id, "next", wait.lane, names(wait.keys))
            local bell = key_of(wait.lane .. ".bell")
            if not rung[bell] and redis.call("LLEN", bell) == 0 then redis.call("RPUSH", bell, 1) end
            rung[bell] = true
          end
        end
      end
    end
  end

  -- Pass on the free places of the next 200 keys; returns the last one, "" when there are no more.
  function own.pass_on_from(key, to)
    for _ = 1, 200 do
      local after = redis.call("ZRANGEBYLEX", turns, "(" .. key .. "\nx", to, "LIMIT", 0, 1)[1]
      key = after and string.match(after, "^([^\n]*)\n") or ""
      if key == "" then break end
      own.pass_on(key)
    end
    return key
  end

  -- Free the places of ids that left their owner, and pass them on. An id that has not ended keeps its place in a sequence.
  -- Where none waits for a limit, by the count of its waits, nothing is passed on; the sweep does not trust the count.
  function own.free(ids, ended)
    own.flush()
    local freed, left, gone, kept, others = {}, {}, {}, {}, {}
    for n, text in ipairs(in_chunks(ids, function(...) return redis.call("HMGET", slots, ...) end)) do
      local id = ids[n]
      if text then gone[#gone + 1] = id end
      if ended and string.sub(text or "", 1, 4) ~= "held" then others[#others + 1] = id end
      for key in string.gmatch(text or "", "\n([^\n]+)") do
        if not ended and keeps_order(key) then
          kept[id] = kept[id] or {}
          table.insert(kept[id], key)
        else
          left[#left + 1] = key .. "\nh\n" .. id
          freed[key], counted[key] = true, nil
        end
      end
    end
    in_chunks(left, function(...) redis.call("ZREM", turns, ...) end)
    in_chunks(gone, function(...) redis.call("HDEL", slots, ...) end)
    for id, keys in pairs(kept) do write_places(id, "kept", "-", keys) end
    for n, text in ipairs(in_chunks(others, function(...) return redis.call("HMGET", waits, ...) end)) do
      local wait = wait_in(text)
      if wait then
        stop_waiting(others[n], wait)
        freed[wait.keys[wait.at].key] = true
      end
    end
    local waited_for = {}
    for key in pairs(freed) do
      local limit = limit_of(key)
      if waited_for[limit] == nil then
        waited_for[limit] = (tonumber(redis.call("HGET", waits, "#" .. limit)) or 0) > 0
      end
      if waited_for[limit] then own.pass_on(key) end
    end
  end

  -- Note that another owner has a message, with its places.
  function own.hand_over(id, owner)
    local keys = redis.call("HGET", slots, id) and places(id) or {}
    local held = {}
    for key in pairs(keys) do held[#held + 1] = key end
    if #held > 0 then write_places(id, "held", owner, held) end
  end

  -- Read the places and waits of ids, for `admit`.
  function own.read(ids)
    own.flush()
    local places_of, waits_of = redis.call("HMGET", slots, unpack(ids)), redis.call("HMGET", waits, unpack(ids))
    for n, id in ipairs(ids) do read_before[id] = { places = places_of[n], wait = waits_of[n] } end
  end

  -- Whether a message may be leased by an owner: then it has its places. Else it is scheduled in its lane.
  function own.admit(id, body, level, lane, owner)
    if not body or string.find(id, "\n", 1, true) then return true end
    local read, wanted = pcall(keys_of, body) -- a body that cannot be read is its consumer's to set aside
    if not read or not wanted then return true end
    if not read_before[id] then own.read({ id }) end
    local has, state = places_in(read_before[id].places)
    local wait, blocked = wait_in(read_before[id].wait), nil
    read_before[id] = nil -- of one that comes twice they have changed
    local stays = not wait
    for _, each in ipairs(wanted) do stays = stays or wait.keys[wait.at].key == each.key end
    if not stays then -- its arguments have changed: it leaves this line, which goes on
      stop_waiting(id, wait)
      has[wait.keys[wait.at].key], wait = true, nil
    end
    for at, each in ipairs(wanted) do
      if not has[each.key] and not blocked then
        local mine = wait and wait.keys[wait.at].key == each.key and member_of(wait, id)
        local first = keeps_order(each.key) and waiting(each.key, 1)[1]
        if full(each) or first and first ~= mine then blocked = at end
      end
    end
    local keep, new = blocked and {} or names(wanted), {}
    if blocked and blocked > 1 and keeps_order(wanted[1].key) then keep = { wanted[1].key } end
    for _, key in ipairs(keep) do
      if not has[key] then new[#new + 1] = key end
      has[key] = nil
    end
    if not blocked and not wait and not next(has) then -- as most: written with others
      for _, key in ipairs(keep) do members[#members + 1], members[#members + 2] = 0, key .. "\nh\n" .. id end
      for _, key in ipairs(new) do taken[key] = (taken[key] or 0) + 1 end
      texts[#texts + 1], texts[#texts + 2] = id, places_text("held", owner, keep)
      return true
    end
    for key in pairs(has) do leave_place(id, key) end -- those that it has no longer
    if wait then stop_waiting(id, wait) end
    if state ~= "" then redis.call("HDEL", slots, id) end
    if #keep > 0 then write_places(id, blocked and "kept" or "held", blocked and "-" or owner, keep) end
    if blocked then
      local turn = wait and wait.turn or redis.call("HINCRBY", waits, "#", 1)
      now = now or now_ms()
      local since = wait and wait.since or string.format("%d", now)
      local tag = wait and wait.keys[wait.at].key == wanted[blocked].key and wait.tag or nil
      local waits_on = { turn = turn, level = level, since = since, at = blocked, lane = lane, keys = wanted, tag = tag }
      local fair = fairness(live_of(lane))
      if fair then waits_on.share, waits_on.step = fair.share_of(body) end
      write_wait(id, waits_on)
    end
    for key in pairs(has) do own.pass_on(key) end
    return not blocked
  end

  -- Forget all places and waits but the places of some ids.
  function own.keep_alone(ids)
    local texts = {}
    for _, id in ipairs(ids) do
      local text = redis.pcall("HGET", slots, id)
      if type(text) == "string" then texts[id] = text end
    end
    redis.call("UNLINK", slots, waits, turns)
    for id, text in pairs(texts) do
      local keys = {}
      for key in string.gmatch(text, "\n([^\n]+)") do keys[#keys + 1] = key end
      write_places(id, "held", string.match(text, "^%l+ %d+ (%S+)") or "-", keys)
    end
  end

  -- Free places that no owner has any more, because a key was lost or another release moved their message, and those that
  -- were passed on to a lane that fetches nothing, if other lanes wait for them. At most 500 places and 200 keys a call.
  function own.sweep()
    local at = redis.call("HMGET", waits, "#scan", "#key")
    local found = redis.call("HSCAN", slots, at[1] or "0", "COUNT", 500)
    for n = 1, #found[2], 2 do
      local id, state, since, where = found[2][n], string.match(found[2][n + 1], "^(%l+) (%d+) (%S+)")
      local there = redis.call("HEXISTS", key_of("bodies"), id) == 1
      if not there then
        own.free({ id }, true)
      elseif state == "held" and redis.call("HEXISTS", key_of("hold:" .. where), id) == 0 then
        own.free({ id }, false)
      elseif state == "next" and now_ms() - tonumber(since) > 2000 then
        local others = {}
        for key in pairs(places(id)) do
          for _, each in ipairs(keeps_order(key) and {} or waiting(key, 50)) do
            local wait = read_wait(string.match(each, "\n([^\n]*)$"))
            if wait and wait.lane ~= where then others[key] = true end
          end
        end
        for key in pairs(others) do
          leave_place(id, key)
          own.pass_on(key, where)
        end
        if next(others) then own.free({ id }, false) end
      end
    end
    redis.call("HSET", waits, "#scan", found[1], "#key", own.pass_on_from(at[2] or "", "+"))
  end
  return own
end
