"""Keyspace ids of a cluster: one for each queue family and some for each master, since one node may lose its keys
while the others keep theirs.

A family's marker lies under the family's hash tag: it moves with the family's keys when their hash slot moves. Those
under :data:`switchyard.addons.cluster.parts.PARTS` are there for masters that hold no queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from switchyard.addons.cluster.parts import PARTS
from switchyard.broker.health.keyspace_id import KeyspaceId, State
from switchyard.broker.health.nodes import holder_of
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word

# Worst first.
ORDER: tuple[State, ...] = ("missing", "another", "unmarked", "ours")


class ClusterIds:
    """One process's memory of all keyspaces, used as :class:`switchyard.broker.health.keyspace_id.KeyspaceId`."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        self._calls, self._keys, self._queues = calls, keys, list(queues)
        self._marks = marks_of(calls, keys, self._queues)
        used_by = [[queue] for queue in self._queues] + [[] for _ in PARTS]
        marked = zip(used_by, self._marks, strict=True)
        self._ids = [KeyspaceId(calls, keys, names, marks=marks) for names, marks in marked]
        self._states: list[State] = []

    @property
    def seen(self) -> str:
        """The ids, or "" while one is missing."""
        ids = [one.seen for one in self._ids]
        return " ".join(ids) if all(ids) else ""

    def prepare(self) -> str:
        """Mark each family that holds nothing, and each part; return the ids, or "" when a family in use has none."""
        for one in self._ids:
            one.prepare()
        return self.seen

    def is_missed(self) -> bool:
        """Return whether a process expected another keyspace somewhere."""
        return any(self._calls.pipeline([("EXISTS", missed) for _, missed in self._marks]))

    def accept(self) -> str:
        """Write a new marker for each family and part."""
        for one in self._ids:
            one.accept()
        return self.seen

    def commands(self) -> list[tuple[Word, ...]]:
        """Return the commands whose answers :meth:`look` reads."""
        return [command for one in self._ids for command in one.commands()]

    def look(self, answers: Sequence[Any]) -> State:
        """Compare each keyspace with what this process saw first, and return the worst result.

        One whose node does not answer is left as it was.
        """
        states = self._states or ["unmarked"] * len(self._ids)
        for at, one in enumerate(self._ids):
            pair = answers[2 * at : 2 * at + 2]
            if not any(isinstance(answer, Exception) for answer in pair):
                states[at] = one.look(pair)
        self._states = states
        return min(states, key=ORDER.index, default="unmarked")

    def where_lost(self) -> str:
        """Return the nodes of the markers that were not found, as :func:`where_lost` does."""
        found = zip(self._marks, self._states, strict=True)
        lost = [marker for (marker, _), state in found if state in ("missing", "another")]
        return where_lost(self._calls, self._keys, self._queues, lost)

    def miss_commands(self) -> list[tuple[Word, ...]]:
        """Return the commands that record the keyspaces that this process had seen and that are not here."""
        lost = zip(self._ids, self._states, strict=True)
        return [command for one, state in lost if state in ("missing", "another") for command in one.miss_commands()]


def marks_of(calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of every marker and of its missed ids: one pair, or on a cluster those of families and parts."""
    if not calls.spread:
        return [(keys.generation(), keys.generations_missed())]
    families = [keys.queue(queue) for queue in queues]
    marks = [(family.keyspace_id, family.keyspaces_missed) for family in families]
    return marks + [(keys.part_id(tag), keys.part_ids_missed(tag)) for tag in PARTS]


def probed_keys(calls: RedisCalls, keys: Keys, queues: Sequence[str]) -> list[str]:
    """Return the keys, beside those of the queues, whose slots operations need on one node."""
    return [keys.pool_reports(), keys.alerts_due(), *(marker for marker, _ in marks_of(calls, keys, queues))]


def where_lost(calls: RedisCalls, keys: Keys, queues: Iterable[str], lost: Iterable[str]) -> str:
    """Return the nodes of a cluster that lost markers, and what they hold, as half a sentence; "" on a single server.

    Args:
        lost: Names of the markers.
    """
    nodes = {holder_of(calls, marker) for marker in lost} - {""}
    if not nodes:
        return ""
    named = {queue: keys.queue(queue).bodies for queue in queues}
    named |= {"pool reports": keys.pool_reports(), "alerts": keys.alerts_due()}
    homes = [(holder_of(calls, key), what) for what, key in named.items()]
    held = {node: [what for home, what in homes if home == node] for node in sorted(nodes)}
    return "; ".join(
        f"node {node} lost keys, it holds {', '.join([*names, 'locks and rate limits'])}"
        for node, names in held.items()
    )


def unmarked_nodes(calls: RedisCalls, keys: Keys, marked: Iterable[str]) -> dict[str, bool]:
    """Return the masters of a cluster without a marker, each with whether a start of a process gives it one.

    Args:
        marked: Names of the markers that are there.

    Raises:
        BrokerUnavailable: no node answers.
    """
    if not calls.spread:
        return {}
    having = {holder_of(calls, name) for name in marked}
    promised = {holder_of(calls, keys.part_id(tag)) for tag in PARTS}
    return {node: node in promised for node in calls.nodes() if node not in having}


def keyspace_of(calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> KeyspaceId | ClusterIds:
    """Return the memory of the keyspace that fits the server: of one marker, or of all those of a cluster."""
    return ClusterIds(calls, keys, queues) if calls.spread else KeyspaceId(calls, keys, queues)
