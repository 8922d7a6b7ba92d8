#!lua flags=allow-oom
-- notify: notify one waiting consumer of a lane.
-- KEYS[1] bell: list
-- Returns 1. O(1).
--@include put

notify(KEYS[1])
return 1
