"""The masters of a cluster: facts, markers and findings of each, what is away or half moved while the others go on.

Operations need all keys of a queue on one node. A reshard leaves a hash slot half moved, on two of them, for
milliseconds; one that is interrupted, until somebody ends it. Reads of one key follow the node's ``ASK``, and do not
show it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from switchyard.addons.cluster.hash_slots import HashSlotHalfMoved, finish_the_move
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.health.server import KeyspaceId, ServerFinding, Severity, State, judge, read_facts
from switchyard.broker.health.servers import NOTHING_AWAY, AwayPart, ServerLook, Servers
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word

# For a node that hangs. One that refuses connections is known as soon as the access gives up.
LOOK_S: Final = 1.0
# Findings of a server outside of a cluster. A master that became a replica is asked until the client knows the new one.
ALONE_ONLY: Final = frozenset({"cluster", "replica"})


# Hash slots that are half moved, with the node that hands each over, and the queues in it: these can be read, and start
# nothing.
HalfMoved = Mapping[tuple[int, str], Sequence[str]]


def probe(key: str) -> tuple[Word, ...]:
    """Return a command on a key, and on another one of its hash tag: an answer needs both on one node."""
    return ("EXISTS", key, f"{key}?") if "{" in key else ("EXISTS", key)


def half_moved_slots(keys: Iterable[str], answers: Iterable[Any], queues: Mapping[str, str]) -> HalfMoved:
    """Return the slots that are half moved, by the answers to each key's :func:`probe`."""
    found: dict[tuple[int, str], list[str]] = {}
    for key, answer in zip(keys, answers, strict=True):
        if isinstance(answer, HashSlotHalfMoved):
            found.setdefault((answer.slot, answer.node), []).extend([queues[key]] if key in queues else [])
    return found


def half_moved(slots: HalfMoved) -> list[ServerFinding]:
    """Return the finding about hash slots that are half moved: an error where a queue is in one of them."""
    if not slots:
        return []
    seen = "; ".join(
        f"hash slot {slot} is half moved away from node {node}; {stands_still(queues)}"
        for (slot, node), queues in slots.items()
    )
    step = finish_the_move(next(iter(slots))[1])
    severity: Severity = "error" if any(slots.values()) else "warning"
    return [ServerFinding("half_moved", severity, seen, f"{step[0].upper()}{step[1:]}.", partial=True)]


def stands_still(queues: Sequence[str]) -> str:
    """Return the clause about queues that neither start nor take a job."""
    if not queues:
        return "no queue is on it"
    verbs = ("starts", "takes") if len(queues) == 1 else ("start", "take")
    return f"{', '.join(queues)} {verbs[0]} nothing and {verbs[1]} no new jobs"


# The smallest numbers with these hash slots: 0, 512, 1024 and so on.
PARTS: Final = (
    "3560", "1768", "22069", "20261", "48576", "18360", "11467", "41271", "4129", "3453", "130", "11199", "1296",
    "29098", "41342", "8591", "8209", "265", "3706", "45842", "2821", "13409", "48710", "17891", "356", "46093",
    "45971", "3635", "16248", "2912", "4782", "48623",
)  # fmt: skip
# Worst first.
ORDER: tuple[State, ...] = ("missing", "another", "unmarked", "ours")


def marks_of_family(keys: Keys, queue: str) -> tuple[str, str]:
    """Return the names of a family's marker, with the fields of that of a single server, and of its missed ids."""
    base = keys.queue(queue).base
    return f"{base}keyspace:id", f"{base}keyspace:missed"


def marks_of_part(keys: Keys, tag: str) -> tuple[str, str]:
    """Return the names of the marker under a tag, and of its missed ids."""
    name = f"{keys.prefix}:keyspace:{{{tag}}}"
    return name, f"{name}:missed"


class Keyspaces(KeyspaceId):
    """One process's memory of all keyspaces; ``seen`` has the ids, or "" while one is missing.

    One for each queue family and some for each master, since one node may lose its keys while the others keep theirs.
    A family's marker lies under the family's hash tag: it moves with the family's keys when their hash slot moves.
    Those under :data:`PARTS` are there for masters that hold no queue: these hash tags lie 512 slots apart, and a
    master that holds 512 slots in a row holds at least one of them.
    """

    def __init__(self, servers: Masters) -> None:
        calls, keys, queues = servers.calls, servers.keys, servers.queues
        super().__init__(calls, keys, queues)
        self._servers = servers
        used_by = [*((queue,) for queue in queues), *(() for _ in PARTS)]
        marked = zip(used_by, servers.marks(), strict=True)
        self._ids = [KeyspaceId(calls, keys, names, marks=marks) for names, marks in marked]

    def prepare(self) -> str:
        """Mark each family that holds nothing, and each part; return the ids, or "" when a family in use has none."""
        return self._all_of([one.prepare() for one in self._ids])

    def is_missed(self) -> bool:
        return any(self._servers.calls.pipeline([("EXISTS", missed) for _, missed in self._servers.marks()]))

    def accept(self) -> str:
        return self._all_of([one.accept() for one in self._ids])

    def _all_of(self, ids: Sequence[str]) -> str:
        self.seen = " ".join(ids) if all(ids) else ""
        return self.seen

    def commands(self) -> list[tuple[Word, ...]]:
        return [command for one in self._ids for command in one.commands()]

    def look(self, answers: Sequence[Any]) -> State:
        states = [one.look(answers[2 * at : 2 * at + 2]) for at, one in enumerate(self._ids)]
        self._all_of([one.seen for one in self._ids])
        self.state = min(states, key=ORDER.index, default="unmarked")
        return self.state

    def failure(self, answers: Sequence[Any]) -> Exception | None:
        """Return the first error but those of a node that does not answer, which is a finding of its own."""
        failed = (answer for answer in answers if isinstance(answer, Exception))
        return next((error for error in failed if not isinstance(error, BrokerUnavailable)), None)

    def where_lost(self) -> str:
        found = zip(self._servers.marks(), self._ids, strict=True)
        return self._servers.where_lost(marker for (marker, _), one in found if one.state in ("missing", "another"))

    def miss_commands(self) -> list[tuple[Word, ...]]:
        lost = (one for one in self._ids if one.state in ("missing", "another"))
        return [command for one in lost for command in one.miss_commands()]


class Masters(Servers):
    """The masters of a cluster."""

    def keyspace(self) -> Keyspaces:
        return Keyspaces(self)

    def marks(self) -> list[tuple[str, str]]:
        families = [marks_of_family(self.keys, queue) for queue in self.queues]
        return families + [marks_of_part(self.keys, tag) for tag in PARTS]

    def marker_of(self, queue: str) -> str:
        return marks_of_family(self.keys, queue)[0]

    def place_of(self, key: str) -> str:
        """Return the address of a key's node, "" while no node has the hash slot."""
        try:
            return self.calls.place_of(key)
        except BrokerUnavailable:
            return ""

    def queues_by_place(self) -> dict[str, list[str]]:
        """Return the queues that each master holds, by its address; a queue whose hash slot has none is left out."""
        found: dict[str, list[str]] = {address: [] for address in self.calls.places()}
        for queue in self.queues:
            if address := self.place_of(self.keys.queue(queue).bodies):
                found.setdefault(address, []).append(queue)
        return found

    def where_lost(self, lost: Iterable[str]) -> str:
        """Return the nodes that lost markers (by name), and what they hold, as half a sentence."""
        nodes = {self.place_of(marker) for marker in lost} - {""}
        if not nodes:
            return ""
        named = {queue: self.keys.queue(queue).bodies for queue in self.queues}
        named |= {"pool reports": self.keys.pool_reports(), "alerts": self.keys.alerts_due()}
        homes = [(self.place_of(key), what) for what, key in named.items()]
        held = {node: [what for home, what in homes if home == node] for node in sorted(nodes)}
        return "; ".join(
            f"node {node} lost keys, it holds {', '.join([*names, 'locks and rate limits'])}"
            for node, names in held.items()
        )

    def unmarked(self, marked: Iterable[str]) -> dict[str, bool]:
        """Return the masters without any of the markers, each with whether a start of a process gives it one."""
        having = {self.place_of(name) for name in marked}
        promised = {self.place_of(marks_of_part(self.keys, tag)[0]) for tag in PARTS}
        return {node: node in promised for node in self.calls.places() if node not in having}

    def probed_keys(self) -> list[str]:
        """Return the keys, beside those of the queues, whose slots operations need on one node."""
        return [self.keys.pool_reports(), self.keys.alerts_due(), *(marker for marker, _ in self.marks())]

    def away(self, *, also: Iterable[str] = ()) -> AwayPart:
        """Return the part that does not answer, in one round trip to all nodes, or after ``LOOK_S``."""
        names = self._bodies()
        watched = [*names, *also]
        answers = self.calls.pipeline([probe(key) for key in watched], raise_errors=False, budget_s=LOOK_S)
        away = {key: found for key, found in zip(watched, answers, strict=True) if isinstance(found, BrokerUnavailable)}
        if not away:
            return NOTHING_AWAY
        silent = [key for key, error in away.items() if not isinstance(error, HashSlotHalfMoved)]
        slots = half_moved_slots(watched, answers, names)
        return AwayPart(
            tuple(sorted({self.place_of(key) for key in silent} - {""})),
            tuple(names[key] for key in silent if key in names),
            frozenset(key for key in away if key not in names),
            frozenset().union(*slots.values()),
            blocked_word="Half moved",
            blocked_why="its hash slot is on two nodes",
            findings=tuple(half_moved(slots)),
        )

    def _bodies(self) -> dict[str, str]:
        return {self.keys.queue(queue).bodies: queue for queue in self.queues}

    def probes(self) -> list[tuple[Word, ...]]:
        return [probe(key) for key in (*self._bodies(), *self.probed_keys())]

    def judge_probes(self, answers: Sequence[Any]) -> list[ServerFinding]:
        names = self._bodies()
        return half_moved(half_moved_slots((*names, *self.probed_keys()), answers, names))

    def read(self, *, production: bool, away: AwayPart = NOTHING_AWAY) -> list[ServerLook]:
        """Read the facts of every master; the finding about one that does not answer names its queues."""
        nodes = self.calls.places()
        budget_s = self.calls.budget_s / len(nodes)  # one after the other, and each may hang

        def read(address: str, node: RedisCalls) -> ServerLook:
            look = None if address in away.places else _read(address, node, production, budget_s)
            return look or ServerLook(address, None, ())

        looks = {address: read(address, node) for address, node in nodes.items()}
        if silent := [address for address, look in looks.items() if look.facts is None]:  # or a master no longer
            nodes = self.calls.places(silent=silent[0])
            looks = {address: looks.get(address) or read(address, node) for address, node in nodes.items()}
        if all(look.facts is None for look in looks.values()):
            raise BrokerUnavailable("INFO", "no node of the cluster answers", outcome="refused")
        if all(look.facts is not None for look in looks.values()):
            return list(looks.values())
        held = self.queues_by_place()
        return [
            look if look.facts is not None else replace(look, findings=(_node_away(held.get(look.place, ())),))
            for look in looks.values()
        ]

    def findings(self, looks: Iterable[ServerLook]) -> list[ServerFinding]:
        """Return the findings of all masters, worst first; those of several nodes with one code are one."""
        found: defaultdict[str, list[tuple[str, ServerFinding]]] = defaultdict(list)
        for look in looks:
            for item in look.findings:
                found[item.code].append((look.place, item))
        joined = []
        for items in found.values():
            seen = "; ".join(f"node {address}: {item.seen}" for address, item in items)
            joined.append(replace(items[0][1], seen=seen))
        return sorted(joined, key=lambda item: item.severity)


def _read(address: str, node: RedisCalls, production: bool, budget_s: float) -> ServerLook | None:
    try:
        facts = read_facts(node, budget_s=budget_s)
    except BrokerUnavailable:
        return None
    found = [item for item in judge(facts, production=production) if item.code not in ALONE_ONLY]
    return ServerLook(address, facts, tuple(found))


def _node_away(queues: Iterable[str]) -> ServerFinding:
    return ServerFinding(
        "node_away",
        "error",
        f"it does not answer; {stands_still(list(queues))}",
        "Start it, or let a replica of it take over; the other nodes' queues go on.",
        partial=True,
    )
