"""Keyspace ids of a cluster: one for each queue family and some for each master, since one node may lose its keys
while the others keep theirs.

A family's marker lies under the family's hash tag: it moves with the family's keys when their hash slot moves. Those
under :data:`PARTS` are there for masters that hold no queue: these hash tags lie 512 slots apart, and a master that
holds 512 slots in a row holds at least one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.health.keyspace_id import KeyspaceId, State
from switchyard.broker.health.servers import Servers
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import Word

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


def marks_of(keys: Keys, queues: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of every marker and of its missed ids."""
    return [marks_of_family(keys, queue) for queue in queues] + [marks_of_part(keys, tag) for tag in PARTS]


class Keyspaces(KeyspaceId):
    """One process's memory of all keyspaces; ``seen`` has the ids, or "" while one is missing."""

    def __init__(self, servers: Servers) -> None:
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


def where_lost(servers: Servers, lost: Iterable[str]) -> str:
    """Return the nodes that lost markers (by name), and what they hold, as half a sentence."""
    nodes = {servers.place_of(marker) for marker in lost} - {""}
    if not nodes:
        return ""
    keys = servers.keys
    named = {queue: keys.queue(queue).bodies for queue in servers.queues}
    named |= {"pool reports": keys.pool_reports(), "alerts": keys.alerts_due()}
    homes = [(servers.place_of(key), what) for what, key in named.items()]
    held = {node: [what for home, what in homes if home == node] for node in sorted(nodes)}
    return "; ".join(
        f"node {node} lost keys, it holds {', '.join([*names, 'locks and rate limits'])}"
        for node, names in held.items()
    )


def unmarked_nodes(servers: Servers, marked: Iterable[str]) -> dict[str, bool]:
    """Return the masters without any of the markers, each with whether a start of a process gives it one."""
    having = {servers.place_of(name) for name in marked}
    promised = {servers.place_of(marks_of_part(servers.keys, tag)[0]) for tag in PARTS}
    return {node: node in promised for node in servers.calls.places() if node not in having}
