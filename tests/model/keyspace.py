"""Every key of a family, read in one step, and what it says of each message."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from switchyard.broker.keys import ALL_LANES, Lane, QueueKeys
from switchyard.broker.redis.calls import RedisCalls
from tests.model.scripts import script_of

WAITING, SCHEDULED, ACTIVE = "waiting", "scheduled", "active"
DEAD, QUARANTINED, FINISHED = "dead", "quarantined", "finished"
NOWHERE = "nowhere"
STATES = (WAITING, SCHEDULED, ACTIVE, DEAD, QUARANTINED, FINISHED)
UNFINISHED = {WAITING, SCHEDULED, ACTIVE}
NOTES = ("level", "key", "crash", "spent", "cancel", "asked")

DUMP = script_of(
    "dump",
    """#!lua flags=allow-oom
local read = {
  hash = function(key) return redis.call("HGETALL", key) end,
  list = function(key) return redis.call("LRANGE", key, 0, -1) end,
  set = function(key) return redis.call("SMEMBERS", key) end,
  string = function(key) return redis.call("GET", key) end,
  zset = function(key) return redis.call("ZRANGE", key, 0, -1, "WITHSCORES") end,
}
local all = {}
for _, key in ipairs(redis.call("KEYS", ARGV[1])) do
  local kind = redis.call("TYPE", key).ok
  all[#all + 1] = { key, kind, read[kind](key), redis.call("PEXPIRETIME", key) }
end
return all
""",
)


@dataclass(frozen=True)
class Keyspace:
    """A family's keys at one moment.

    Args:
        raw: Name -> value, byte by byte; a hash or a set in no order.
        expiries: Name -> when it goes, ms since the epoch, for those that were given a time and not a duration.
    """

    keys: QueueKeys
    raw: dict[str, Any]
    expiries: dict[str, int]

    @cached_property
    def bodies(self) -> dict[str, bytes]:
        return self._hash(self.keys.bodies)

    @cached_property
    def waiting(self) -> dict[tuple[Lane, int], list[str]]:
        """Ids in the order in which they are handed out, of each lane and level that has some."""
        places = [(lane, level, name) for lane in ALL_LANES for level, name in enumerate(self.keys.waiting(lane), 1)]
        return {(lane, level): ids for lane, level, name in places if (ids := self._list(name))}

    @cached_property
    def scheduled(self) -> dict[Lane, dict[str, int]]:
        return {lane: self._scores(self.keys.due(lane)) for lane in ALL_LANES}

    @cached_property
    def rung(self) -> dict[Lane, int]:
        """Tokens in the bell of each lane."""
        return {lane: len(self._list(self.keys.wakeup(lane))) for lane in ALL_LANES}

    @cached_property
    def leases(self) -> dict[str, int]:
        return self._scores(self.keys.leases)

    @cached_property
    def holds(self) -> dict[str, dict[str, int]]:
        """Owner -> id -> token, of those who hold something."""
        start = self.keys.hold("")
        held = {
            name.removeprefix(start): {id_: int(token) for id_, token in self._hash(name).items() if id_ != "#"}
            for name in self.raw
            if name.startswith(start)
        }
        return {owner: ids for owner, ids in held.items() if ids}

    @cached_property
    def token(self) -> int:
        return int(self.raw.get(self.keys.token, 0))

    @cached_property
    def paused(self) -> bool:
        return self.keys.paused in self.raw

    @cached_property
    def done(self) -> dict[str, str]:
        """Finished id -> the word with which it ended."""
        return {id_: str(word, "ascii") for name in self.keys.done for id_, word in self._hash(name).items()}

    @cached_property
    def letters(self) -> dict[str, bytes]:
        return self._hash(self.keys.dead_letters)

    @cached_property
    def dead(self) -> list[str]:
        return self._list(self.keys.dead)

    @cached_property
    def quarantine(self) -> list[str]:
        return self._list(self.keys.quarantine)

    @cached_property
    def unique(self) -> dict[str, str]:
        return {key: str(id_, "ascii") for key, id_ in self._hash(self.keys.unique).items()}

    def notes(self, kind: str) -> dict[str, str]:
        """Id -> what one kind of note says of it, one of :data:`NOTES`."""
        start = f"{kind}:"
        noted = self._hash(self.keys.notes)
        return {name.removeprefix(start): str(v, "ascii") for name, v in noted.items() if name.startswith(start)}

    @cached_property
    def crashes(self) -> dict[str, int]:
        """Id -> how often it took its worker down."""
        return {id_: int(note.split()[0]) for id_, note in self.notes("crash").items()}

    def places(self) -> dict[str, list[str]]:
        """Id -> every place it is in."""
        found: dict[str, list[str]] = defaultdict(list)
        every = {WAITING: self.waiting, SCHEDULED: self.scheduled, ACTIVE: self.holds, DEAD: {"": self.dead}}
        for place, groups in every.items():
            for id_ in chain.from_iterable(groups.values()):
                found[id_].append(place)
        for id_, word in self.done.items():
            found[id_].append(QUARANTINED if word.startswith("quarantine ") else FINISHED)
        return dict(found)

    def view(self) -> dict[str, object]:
        """Return the state that :meth:`tests.model.model.Model.view` predicts, as read from the server."""
        return {
            "waiting": self.waiting, "scheduled": self.scheduled, "holds": self.holds, "leases": self.leases,
            "token": self.token, "paused": self.paused, "bodies": self.bodies, "dead": self.dead,
            "letters": self.letters, "quarantine": self.quarantine, "ended": set(self.done), "unique": self.unique,
            "levels": self.notes("level"), "crashes": self.notes("crash"), "cancelled": set(self.notes("cancel")),
            "asked": set(self.notes("asked")),
        }  # fmt: skip

    def _hash(self, name: str) -> dict[str, Any]:
        return {str(field, "ascii"): value for field, value in self.raw.get(name, {}).items()}

    def _list(self, name: str) -> list[str]:
        return [str(item, "ascii") for item in self.raw.get(name, ())]

    def _scores(self, name: str) -> dict[str, int]:
        return {str(member, "ascii"): int(score) for member, score in self.raw.get(name, {}).items()}


def read(wire: RedisCalls, keys: QueueKeys) -> Keyspace:
    """Return the family's keys, all of the same moment, but for sends that met a held unique key.

    They are for people: a send whose answer is lost counts twice.
    """
    raw: dict[str, Any] = {}
    expiries: dict[str, int] = {}
    for name_bytes, kind, value, expires_at_ms in wire.call(DUMP, [keys.bodies], [f"{keys.base}*"]):
        name = str(name_bytes, "ascii")
        if kind in (b"hash", b"zset"):
            value = dict(zip(value[::2], value[1::2], strict=True))
        elif kind == b"set":
            value = frozenset(value)
        if name not in (keys.yields, keys.stand_ins, keys.sends):
            raw[name] = value
        if name in keys.done:
            expiries[name] = expires_at_ms
    return Keyspace(keys, raw, expiries)
