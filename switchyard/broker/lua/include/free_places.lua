-- Free the places of ids, where a family has any: `bodies` its bodies. Needs limits. A key of a wrong type frees none: the move of the
-- message, which ends with this, counts.
local function free_places(bodies, ids, ended)
  if redis.call("EXISTS", string.sub(bodies, 1, -7) .. "turns") == 1 then pcall(limits_of(bodies).free, ids, ended) end
end
