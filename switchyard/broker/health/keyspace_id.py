"""Keyspace id: a marker by which workers detect that the server lost its data, or that it is another server.

The first process of a yard that starts on an empty server writes the marker; no process writes it again by itself. A
process that has seen the marker and then finds none, or another one, records that in the keyspace and stops. An
operator accepts the keyspace.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from switchyard.broker.health.server import ServerFinding
from switchyard.broker.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.own_keys import texts_of
from switchyard.broker.redis.scripts import script

State = Literal["ours", "missing", "another", "unmarked"]

ACCEPT = "manage.py switchyard broker accept"
MAKE, ACCEPT_HERE = (script(name, folder="") for name in ("generation_make", "generation_accept"))


class KeyspaceId:
    """One process's memory of the keyspace it works in.

    Args:
        queues: Of the yard: their keys show whether a keyspace is in use.
        marks: Names of the marker and of the missed ids; by default those that are shared by all queues.
    """

    def __init__(
        self, calls: RedisCalls, keys: Keys, queues: Iterable[str], *, marks: tuple[str, str] | None = None
    ) -> None:
        self.seen = ""
        self.state: State = "unmarked"
        self._marks = marks or (keys.generation(), keys.generations_missed())
        self._used_by = [key for queue in queues for key in keys.queue(queue).all_keys()]
        self._calls = calls

    def prepare(self) -> str:
        """Mark a keyspace that holds nothing of ours; return its id, or "" when it has none and is in use.

        Raises:
            BrokerUnavailable: the server did not answer, or is a replica, which only reads.
        """
        id_ = self._calls.call(MAKE, [*self._marks, *self._used_by], [uuid.uuid4().hex])
        self.seen = str(id_, "ascii") if id_ else ""
        return self.seen

    def is_missed(self) -> bool:
        """Return whether a process expected another keyspace here."""
        return bool(self._calls.command("EXISTS", self._marks[1]))

    def accept(self) -> str:
        """Write a new marker, so that all processes resume; return the new keyspace id."""
        id_ = uuid.uuid4().hex
        self._calls.call(ACCEPT_HERE, self._marks, [id_])
        self.seen = id_
        return id_

    def commands(self) -> list[tuple[Word, ...]]:
        """Return the commands whose answers :meth:`look` reads."""
        return [("HGETALL", self._marks[0]), ("SMEMBERS", self._marks[1])]

    def look(self, answers: Sequence[Any]) -> State:
        """Compare the keyspace with the one that this process saw first; without an answer it is as it was."""
        if any(isinstance(answer, Exception) for answer in answers):
            return self.state
        marker, missed = texts_of(answers[0]), answers[1]
        id_ = marker.get("id", "")
        if not self.seen:
            self.seen = id_
        if id_ and id_ != self.seen and self.seen in marker.get("instead_of", "").split():
            self.seen = id_  # a person accepted it in place of ours
        if self.seen:
            self.state = "ours" if id_ == self.seen else "another" if id_ else "missing"
        else:
            self.state = "missing" if missed else "unmarked"
        return self.state

    def failure(self, answers: Sequence[Any]) -> Exception | None:
        """Return the error among the answers that :meth:`look` could not read, where nothing else reports it."""
        return next((answer for answer in answers if isinstance(answer, Exception)), None)

    def where_lost(self) -> str:
        """Return the servers whose keyspace is not the one that was there, as half a sentence; "" for the only one."""
        return ""

    def miss_commands(self) -> list[tuple[Word, ...]]:
        """Return the commands that record that the keyspace this process had seen is not here."""
        return [("SADD", self._marks[1], self.seen)] if self.seen else []


def finding(state: State, where: str = "") -> list[ServerFinding]:
    """Return the findings of a state, and who lost it. Processes report an unmarked one at their start."""
    if state == "missing":
        seen = "the broker's keyspace was emptied, or this is another database: the marker that was there is gone"
    elif state == "another":
        seen = "the broker's keyspace is not the one that was there: it has another marker"
    else:
        return []
    remedy = (
        f"Find out what became of it (FLUSHDB, a failover to an empty server, a wrong database number); restore it, or "
        f"run `{ACCEPT}` to go on with what is there. Until then workers fetch nothing."
    )
    return [ServerFinding("keyspace", "error", f"{seen}; {where}" if where else seen, remedy)]
