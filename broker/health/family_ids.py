"""Keyspace ids of a cluster: one for each queue family, since one node may lose its keys while the others keep theirs.

A family's marker lies under the family's hash tag: it moves with the family's keys when their hash slot moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from broker.health.keyspace_id import KeyspaceId, State
from broker.keys.keys import Keys
from broker.redis.calls import RedisCalls, Word

# Worst first.
ORDER: tuple[State, ...] = ("missing", "another", "unmarked", "ours")


class FamilyIds:
    """One process's memory of the keyspaces of all families, used as :class:`broker.health.keyspace_id.KeyspaceId`."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        names = list(queues)
        marked = zip(names, marks_of(calls, keys, names), strict=True)
        self._ids = [KeyspaceId(calls, keys, [queue], marks=marks) for queue, marks in marked]
        self._states: list[State] = []

    @property
    def seen(self) -> str:
        """The ids, or "" while a family has none."""
        ids = [one.seen for one in self._ids]
        return " ".join(ids) if all(ids) else ""

    def prepare(self) -> str:
        """Mark each family that holds nothing; return the ids, or "" when one has none and is in use."""
        for one in self._ids:
            one.prepare()
        return self.seen

    def is_missed(self) -> bool:
        """Return whether a process expected another keyspace of a family."""
        return any(one.is_missed() for one in self._ids)

    def accept(self) -> str:
        """Write a new marker for each family."""
        for one in self._ids:
            one.accept()
        return self.seen

    def commands(self) -> list[tuple[Word, ...]]:
        """Return the commands whose answers :meth:`look` reads."""
        return [command for one in self._ids for command in one.commands()]

    def look(self, answers: Sequence[Any]) -> State:
        """Compare each family with what this process saw first, and return the worst result.

        A family whose node does not answer is left as it was.
        """
        states = self._states or ["unmarked"] * len(self._ids)
        for at, one in enumerate(self._ids):
            pair = answers[2 * at : 2 * at + 2]
            if not any(isinstance(answer, Exception) for answer in pair):
                states[at] = one.look(pair)
        self._states = states
        return min(states, key=ORDER.index, default="unmarked")

    def miss_commands(self) -> list[tuple[Word, ...]]:
        """Return the commands that record the families whose keyspace this process had seen and that is not here."""
        lost = zip(self._ids, self._states, strict=True)
        return [command for one, state in lost if state in ("missing", "another") for command in one.miss_commands()]


def marks_of(calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names of every marker and of its missed ids: one pair, or one for each family on a cluster."""
    if not calls.spread:
        return [(keys.generation(), keys.generations_missed())]
    families = [keys.queue(queue) for queue in queues]
    return [(family.keyspace_id, family.keyspaces_missed) for family in families]


def keyspace_of(calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> KeyspaceId | FamilyIds:
    """Return the memory of the keyspace that fits the server: of one marker, or of one for each family."""
    return FamilyIds(calls, keys, queues) if calls.spread else KeyspaceId(calls, keys, queues)
