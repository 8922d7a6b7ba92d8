-- Put ids into a lane: due at a time, or waiting at the tail; then ring its bell for a waiting consumer.
-- `levels` are the lists of high, normal and low priority. A bell that holds a token is not rung again.
local function notify(bell)
  if redis.call("LLEN", bell) == 0 then redis.call("RPUSH", bell, 1) end
end

local function put(ids, level, due_at, levels, due, bell)
  if #ids == 0 then return end
  if due_at then
    local head = redis.call("ZRANGE", due, 0, 0, "WITHSCORES")
    local scored = {}
    for n, id in ipairs(ids) do scored[2 * n - 1], scored[2 * n] = due_at, id end
    redis.call("ZADD", due, unpack(scored))
    -- A waiting consumer knows when the earliest one is due. Ring only for an earlier one.
    if #head == 0 or tonumber(head[2]) > due_at then notify(bell) end
  else
    redis.call("RPUSH", levels[level], unpack(ids))
    notify(bell)
  end
end
