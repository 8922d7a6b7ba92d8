"""Streams of ended attempts, one a queue family, on their way into the database.

Their reader removes entries after it committed their rows: after a crash in between it reads them again, and writes the
same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.pipelines import call_together
from switchyard.broker.redis.scripts import script

COUNTS: Final = ("written", "skipped")
REMOVE: Final = script("history_remove", folder="")
# Words of a call: ids with the sizes and numbers of their rows.
AT_ONCE: Final = 1_500


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """An entry of a stream: number of rows, and rows for :func:`switchyard.broker.stores.ended_jobs.decode_rows`."""

    queue: str
    id: bytes
    count: int
    rows: bytes


@dataclass(frozen=True, slots=True)
class HistoryBacklog:
    """Entries of one family that are not in the database yet.

    Args:
        oldest_age_ms: Since the oldest entry was added, by the server's clock; ``None`` without one.
        dropped: Rows that were lost to the stream's budget, since the keyspace was made.
    """

    queue: str
    entries: int
    oldest_age_ms: int | None
    dropped: int


class HistoryStreams:
    """Reader of the streams."""

    def __init__(self, calls: RedisCalls, keys: Keys, queues: Iterable[str]) -> None:
        self._calls, self._keys = calls, keys
        self._queues = tuple(queues)

    def read(self, *, limit: int) -> list[HistoryEntry]:
        """Return the oldest entries of each family, at most ``limit`` of each, in one round trip."""
        commands = [("XRANGE", self._stream(queue), "-", "+", "COUNT", limit) for queue in self._queues]
        answers = self._calls.pipeline(commands, raise_errors=False)
        return [
            _entry(queue, id_, fields)
            for queue, answer in zip(self._queues, answers, strict=True)
            if isinstance(answer, list)  # else a key of a wrong type, which doctor reports
            for id_, fields in answer
        ]

    def remove(self, entries: Sequence[HistoryEntry], *, written: int, skipped: int) -> None:
        """Remove entries whose rows were committed, in the order of the stream, and count their rows."""
        sizes: dict[str, list[Word]] = {}
        for entry in entries:
            sizes.setdefault(entry.queue, []).extend((entry.id, len(entry.rows), entry.count))
        batches = [
            ([self._stream(queue), self._keys.queue(queue).ended], found[start : start + AT_ONCE])
            for queue, found in sizes.items()
            for start in range(0, len(found), AT_ONCE)
        ]
        commands: list[Sequence[Word]] = []
        for name, count in zip(COUNTS, (written, skipped), strict=True):
            if count:
                commands.append(("HINCRBY", self._keys.history_counts(), name, count))
        for answer in call_together(self._calls, REMOVE, batches, commands=commands):
            if isinstance(answer, BrokerError):
                raise answer

    def counts(self) -> dict[str, int]:
        """Return how many rows were written, and how many were skipped because they could not be read."""
        found = self._calls.command("HMGET", self._keys.history_counts(), *COUNTS)
        return {name: int(value or 0) for name, value in zip(COUNTS, found, strict=True)}

    def backlog(self) -> list[HistoryBacklog]:
        """Return what each family holds, in one round trip."""
        commands: list[Sequence[Word]] = [("TIME",)]
        for queue in self._queues:
            stream = self._stream(queue)
            commands += [("XLEN", stream), ("XRANGE", stream, "-", "+", "COUNT", 1)]
            commands.append(("HGET", self._keys.queue(queue).ended, "dropped"))
        (seconds, micros), *answers = self._calls.pipeline(commands, raise_errors=False)
        now = int(seconds) * 1000 + int(micros) // 1000
        return [
            HistoryBacklog(
                queue,
                length if isinstance(length, int) else 0,
                _age_ms(first, now),
                int(dropped) if isinstance(dropped, bytes) and dropped.isdigit() else 0,
            )
            for queue, length, first, dropped in zip(
                self._queues, answers[::3], answers[1::3], answers[2::3], strict=True
            )
        ]

    def _stream(self, queue: str) -> str:
        return self._keys.queue(queue).history


def _entry(queue: str, id_: bytes, fields: Any) -> HistoryEntry:
    found = dict(zip(fields[::2], fields[1::2], strict=False)) if isinstance(fields, list) else {}
    count = found.get(b"n", b"")
    return HistoryEntry(
        queue, id_, int(count) if count.isdigit() and len(count) < 7 else 1, bytes(found.get(b"rows", b""))
    )


def _age_ms(first: Any, now: int) -> int | None:
    if not isinstance(first, list) or not first:
        return None
    return max(0, now - int(first[0][0].partition(b"-")[0]))
