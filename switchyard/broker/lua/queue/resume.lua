#!lua flags=allow-oom
-- resume: lease messages of a family again.
-- KEYS[1] paused: string
-- KEYS[2..4] bells: lists
-- Returns 1, or 0 when it was not paused. O(1).
--@include put

local was = redis.call("DEL", KEYS[1])
notify(KEYS[2])
notify(KEYS[3])
notify(KEYS[4])
return was
