"""Values that a broker reports: dead letters, unreadable messages, figures of queues, and pages of a listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up, as stored in its dead list.

    Args:
        id: The message's id, hence the job's.
        queue: Name of the queue it belongs to (``webhook``, never ``webhook-retry``).
        message: The message as Dramatiq encodes it: queue_name, actor_name, args, kwargs, options, …
        reason: ``exhausted``, ``permanent``, ``poison``, ``suspected_poison`` or ``time_limit``.
        exception: Class name; ``error``: its text; ``traceback``: formatted.
        attempts: Times it was started.
        enqueued_at, died_at: Milliseconds since the epoch.
        duration_ms: Run time of the last attempt.
        fingerprint: Same for failures with one cause: of actor, exception and the traceback's frames.
    """

    id: str
    queue: str
    actor: str
    message: dict[str, Any]
    reason: str
    exception: str
    error: str
    traceback: str
    attempts: int
    enqueued_at: int
    died_at: int
    duration_ms: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Bytes from a queue that are no message, the first 4 KiB of them, kept for inspection."""

    id: str
    queue: str
    raw: bytes
    size_bytes: int
    error: str
    seen_at: int


@dataclass(frozen=True, slots=True)
class LaneStats:
    """Figures of a lane (a queue or a retry lane). Ages in ms; ``None`` when nothing waits."""

    name: str
    waiting: int
    scheduled: int
    running: int
    oldest_age_ms: int | None


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Figures of a queue family.

    Args:
        parked: Scheduled messages that wait for a worker that knows their actor.
    """

    queue: str
    live: LaneStats
    retry: LaneStats
    dead: int
    quarantined: int
    paused: bool = False
    parked: int = 0


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a listing. ``cursor`` leads to the next page; ``None`` on the last."""

    items: Sequence[T]
    cursor: int | None = None
