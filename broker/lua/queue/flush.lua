#!lua flags=allow-oom
-- flush: drop every message of a family that is not dead, quarantined or finished.
-- KEYS[1...] bodies, waiting, due, bells, notes, unique, holds
-- Leases stay. Whoever works on a message that was dropped finds its token stale. Returns 1. O(keys), freed later.

redis.call("UNLINK", unpack(KEYS))
return 1
