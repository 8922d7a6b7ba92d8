"""What a queue family takes and gives: messages to enqueue, leases, and the answers of its scripts, read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Entry(NamedTuple):
    """A message to enqueue: its id, its body, and the unique key that at most one unfinished message holds."""

    id: str
    body: bytes
    unique_key: str = ""


@dataclass(frozen=True, slots=True)
class Lease:
    """A message that an owner holds: its id and the fencing token, both as the server wrote them."""

    owner: str
    id: bytes
    token: bytes


@dataclass(frozen=True, slots=True)
class Grant:
    """A message that was fetched.

    Args:
        crashes: Times it took its worker down.
        cancel_requested: Its job was asked to stop while a worker held it.
        cause: What ended its last worker, or ``alone`` after a move since; it starts with ``limit`` when the worker was
            killed for this message's hard limit.
        body: ``None`` when somebody put an id into the lane without one.
    """

    lease: Lease
    crashes: int
    cancel_requested: bool
    cause: str
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought.

    Args:
        state: ``ok``; ``paused``; or ``gone`` when the owner has no lease and must go on under another name.
        stale: Leases, of those acknowledged with it, that were no longer valid.
        next_due_ms: Milliseconds until the next scheduled message is due; ``None`` when none is.
        left: Messages wait still.
    """

    state: str
    grants: list[Grant]
    stale: list[Lease]
    next_due_ms: int | None
    left: bool


@dataclass(frozen=True, slots=True)
class Suspect:
    """A message that ran while its worker died. ``lease`` and ``body`` are there when the heir got it."""

    id: str
    crashes: int
    lease: Lease | None
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What became of a dead owner's messages: how many went back to the head of their lane, and who is suspect."""

    returned: int
    suspects: list[Suspect]


def fetched(owner: str, answer: list[object], acked: Sequence[Lease] = ()) -> Fetched:
    """Return what a fetch's answer says."""
    state, stale, next_due_ms, left = answer[:4]
    grants = [
        Grant(Lease(owner, id_, token), *_noted(crashes), body)
        for id_, token, crashes, body in zip(*[iter(answer[4:])] * 4, strict=True)
    ]
    return Fetched(
        state=str(state, "ascii"),  # type: ignore[call-overload]
        grants=grants,
        stale=[acked[position - 1] for position in stale],  # type: ignore[attr-defined]
        next_due_ms=next_due_ms if isinstance(next_due_ms, int) and next_due_ms >= 0 else None,
        left=left == 1,
    )


def _noted(crashes: bytes) -> tuple[int, bool, str]:
    """Return count, whether it was asked to stop, and cause, of what a fetch says about crashes."""
    count, _, cause = str(crashes, "utf-8", "replace").partition(": ")
    return int(count.partition(" ")[0]), count.endswith(" asked"), cause
