"""Values of a queue's operations: messages to enqueue, leases, and parsed answers of scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from switchyard.broker.redis.calls import Word

HIGH, NORMAL, LOW = 1, 2, 3
# Lua's stack takes about 8,000 values; a call of so many messages takes the server well under 10 ms.
AT_ONCE: Final = 500


class Entry(NamedTuple):
    """A message to enqueue: its id, its body, and the unique key that at most one unfinished message holds."""

    id: str
    body: bytes
    unique_key: str = ""


class HistoryRow(NamedTuple):
    """Row of an ended attempt for the history, written in one step with the move of its message.

    Args:
        packed: MessagePack array of one row, see :mod:`switchyard.broker.stores.ended_jobs`; empty for none.
        most_bytes: Budget of the stream.
    """

    packed: bytes = b""
    most_bytes: int = 0


NO_ROW: Final = HistoryRow()


class CancelRecord(NamedTuple):
    """Record of a cancelled job, and the same as rows for the history, written in one step with its cancellation.

    Both as in :mod:`switchyard.broker.stores.ended_jobs`, empty for none; the numbers are limits of the queue family.
    """

    record: bytes = b""
    rows: bytes = b""
    ended_ms: int = 0
    records_bytes: int = 0
    history_bytes: int = 0


NO_RECORD: Final = CancelRecord()


class Lease(NamedTuple):
    """A message that an owner holds: its id and the fencing token, both as the server wrote them."""

    owner: str
    id: bytes
    token: bytes


class Grant(NamedTuple):
    """A message that was fetched.

    Args:
        crashes: Times it terminated its worker.
        cancel_requested: Its job was asked to stop while a worker held it.
        cause: What ended its last worker, or ``alone`` after a move since; it starts with ``limit`` when the worker was
            killed for this message's hard limit.
        body: ``None`` when the lane held an id without a body.
        lapses: ``None``, or of a lapse suspect the counted lapses, each ``<ms since the epoch>@<host>``.
    """

    lease: Lease
    crashes: int
    cancel_requested: bool
    cause: str
    body: bytes | None
    lapses: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class MovingMessage:
    """A waiting message that was leased in order to move it to another family.

    ``body`` is ``None`` for one that is cancelled or has none; ``crashes`` is the note as the server wrote it.
    """

    lease: Lease
    body: bytes | None
    unique_key: bytes
    crashes: bytes
    cancel_requested: bool


class Fetched(msgspec.Struct, frozen=True):
    """Answer to a fetch.

    Args:
        state: ``ok``; ``paused``; or ``gone`` when the owner has no lease and must go on under another name.
        stale: Those of the acknowledged leases that were lost.
        next_due_ms: Milliseconds until the next scheduled message is due; ``None`` when none is.
        left: More messages wait.
    """

    state: str
    grants: list[Grant]
    stale: list[Lease]
    next_due_ms: int | None
    left: bool


class Suspect(msgspec.Struct, frozen=True):
    """A message that ran while its worker ended. ``lease`` and ``body`` are set when the heir got it."""

    id: str
    crashes: int
    lease: Lease | None
    body: bytes | None


class Reclaimed(msgspec.Struct, frozen=True):
    """Result of reclaiming a dead owner's messages: count of those at the head of their lane again, and suspects."""

    returned: int
    suspects: list[Suspect]


def fetched(owner: str, answer: list[object], acked: Sequence[Lease] = ()) -> Fetched:
    state, stale, next_due_ms, left = answer[:4]
    grants = [
        _granted(Lease(owner, id_, token), crashes, body)
        for id_, token, crashes, body in zip(*[iter(answer[4:])] * 4, strict=True)
    ]
    return Fetched(
        state=str(state, "ascii"),  # type: ignore[call-overload]
        grants=grants,
        stale=[acked[position - 1] for position in stale],  # type: ignore[attr-defined]
        next_due_ms=next_due_ms if isinstance(next_due_ms, int) and next_due_ms >= 0 else None,
        left=left == 1,
    )


def _granted(lease: Lease, noted: bytes, body: bytes | None) -> Grant:
    """Parse what is noted of a message: crashes, lapses, whether cancellation was requested, and cause."""
    if noted == b"0":
        return Grant(lease, 0, False, "", body)
    words, _, cause = str(noted, "utf-8", "replace").partition(": ")
    count, *more = words.split(" ")
    lapses = [word.partition("=")[2] for word in more if word.startswith("suspect=")]
    counted = tuple(lapses[0].split(",")) if lapses and lapses[0] != "+" else ()
    return Grant(lease, int(count), "asked" in more, cause, body, counted if lapses else None)


def lease_args(leases: Sequence[Lease]) -> list[Word]:
    """Return ids and tokens, one after the other, as scripts take them."""
    return [arg for lease in leases for arg in (lease.id, lease.token)]


def in_chunks(leases: Sequence[Lease]) -> Iterator[Sequence[Lease]]:
    """Yield leases 250 at a time: two arguments each, 500 in one call."""
    for start in range(0, len(leases), AT_ONCE // 2):
        yield leases[start : start + AT_ONCE // 2]


def level_of(priority: object) -> int:
    """Return the level of a message's ``priority``: a lower number goes first, 0 is normal."""
    if not isinstance(priority, (int, float)) or priority == 0:
        return NORMAL
    return HIGH if priority < 0 else LOW
