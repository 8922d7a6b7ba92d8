-- Places of ids in a list, found without a walk over the whole list for each: read windows of it, the first one at
-- `from`, and search at most 4 times for an id that is in none. Returns a table id -> index, and the set of ids that
-- were not searched for: a later call finds them.
local function places_of(ids, list, from)
  local place, later, searched = {}, {}, 0
  local function read(at)
    for n, id in ipairs(redis.call("LRANGE", list, at, at + 2 * #ids + 199)) do place[id] = place[id] or at + n - 1 end
  end
  read(from)
  for _, id in ipairs(ids) do
    if not place[id] then
      if searched == 4 then
        later[id] = true
      else
        searched = searched + 1
        local at = redis.call("LPOS", list, id)
        if at then read(at) end
      end
    end
  end
  return place, later
end

-- Remove ids from the list by their places: mark each, then remove the marks in one walk. Returns the lowest place.
local function unlist(ids, list, place)
  local marked, lowest = 0, nil
  for _, id in ipairs(ids) do
    if place[id] then
      redis.call("LSET", list, place[id], "")
      marked = marked + 1
      lowest = math.min(lowest or place[id], place[id])
    end
  end
  if marked > 0 then
    local near_head = lowest < redis.call("LLEN", list) / 2
    redis.call("LREM", list, near_head and marked or -marked, "")
  end
  return lowest or 0
end
