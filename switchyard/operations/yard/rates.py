"""Arrivals, starts and ends a second of each queue, from two readings of the broker's counters."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from switchyard.broker.shapes import QueueStats

WINDOW_S: Final = 60.0
SHORTEST_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """Figures of a queue family at one moment: tokens issued so far, messages there, messages leased."""

    at_s: float
    issued: int
    there: int
    leased: int


@dataclass(frozen=True, slots=True)
class Rates:
    """Attempts a second over ``seconds``. A retry arrives, starts and ends like a new message."""

    arrivals: float
    starts: float
    ends: float
    seconds: float


_readings: dict[str, deque[QueueSnapshot]] = {}
_lock = threading.Lock()


def measure(stats: Iterable[QueueStats]) -> dict[str, Rates]:
    """Note the figures of queues, and return the rates since the oldest that this process noted in the last minute.

    A queue is missing after its first figures, within a second of them, and where its broker counts no tokens.
    """
    now_s, found = time.monotonic(), {}
    for one in stats:
        if one.issued is None:
            continue
        lanes = one.live, one.retry
        snapshot = QueueSnapshot(
            now_s, one.issued, sum(lane.total for lane in lanes), sum(lane.running for lane in lanes)
        )
        rates = note(one.queue, snapshot)
        if rates is not None:
            found[one.queue] = rates
    return found


def note(queue: str, now: QueueSnapshot) -> Rates | None:
    """Keep a reading, and return the rates since the oldest one that is kept."""
    with _lock:
        kept = _readings.setdefault(queue, deque(maxlen=int(WINDOW_S)))
        while kept and (now.at_s - kept[0].at_s > WINDOW_S or kept[0].issued > now.issued):
            kept.popleft()
        first = kept[0] if kept else None
        if not kept or now.at_s - kept[-1].at_s >= SHORTEST_S:
            kept.append(now)
    if first is None or now.at_s - first.at_s < SHORTEST_S:
        return None
    return between(first, now)


def forget() -> None:
    """Forget the readings."""
    with _lock:
        _readings.clear()


def between(first: QueueSnapshot, last: QueueSnapshot) -> Rates:
    """Return the rates between two readings. A purge takes messages away that never started: nothing ends below 0."""
    seconds = last.at_s - first.at_s
    starts = last.issued - first.issued
    ends = max(starts - (last.leased - first.leased), 0)
    arrivals = max(last.there - first.there + ends, 0)
    return Rates(arrivals / seconds, starts / seconds, ends / seconds, seconds)
