"""Slots that would keep a pool's promise at its present arrivals and durations: one number for autoscalers."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from switchyard.broker.topology import Pool, Yard
from switchyard.operations.queries import YardState

WINDOW_S, SHORTEST_S = 60.0, 10.0
# A backlog is to be over by then, or within the promise where that is longer: a new pod takes most of a minute.
DRAIN_S: Final = 60.0
# Share of messages that may start later than promised.
LATE: Final = 0.01


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """Figures of a pool at one moment.

    Args:
        work: Messages ended, and seconds that slots were busy, of each of its supervisors since that started.
        waiting: Messages of its lanes that wait; those of paused queues do not count.
        busy: Messages that run.
    """

    at_s: float
    work: Mapping[str, tuple[int, float]]
    waiting: int
    busy: int


def slots_for(load: float, duration_s: float, promise_s: float | None) -> int:
    """Return the least slots with which at most one message in a hundred starts later than promised.

    Messages arrive by chance and take ``duration_s`` in the mean: an M/M/c queue, whose formula errs on the safe side
    where run times differ by less than an exponential distribution, and knows nothing of bursts.

    Args:
        load: Slots that the arrivals keep busy in the mean.
        promise_s: Time until a message starts; ``None`` for slots that only keep up.

    Source: Erlang's C formula, as in Gans, Koole, Mandelbaum, "Telephone Call Centers", MSOM 5 (2003), section 3.1.
    """
    slots, lost = 0, 1.0
    while True:
        slots += 1
        lost = load * lost / (slots + load * lost)  # Erlang's B formula for so many slots
        if slots <= load:
            continue
        if promise_s is None:
            return slots
        waits = slots * lost / (slots - load * (1 - lost))
        if waits * math.exp(-(slots - load) * promise_s / max(duration_s, 0.001)) <= LATE:
            return slots


def slots_with_backlog(load: float, duration_s: float, promise_s: float | None, waiting: int) -> int:
    """Return the slots of :func:`slots_for`, or those that also start what waits within a minute, or the promise."""
    drained = load + waiting * duration_s / max(promise_s or 0.0, DRAIN_S)
    return max(slots_for(load, duration_s, promise_s), math.ceil(drained))


def needed(first: PoolSnapshot, last: PoolSnapshot, promise_s: float | None) -> int | None:
    """Return the slots that a pool needs by two snapshots; ``None`` where no supervisor is in both.

    The mean of busy slots is the load that was served (Little's law), and the growth of what waits is load as well.
    """
    both = [(first.work[member], last.work[member]) for member in first.work.keys() & last.work.keys()]
    seconds = last.at_s - first.at_s
    if not both or seconds <= 0:
        return None
    ended = sum(after[0] - before[0] for before, after in both)
    busy_s = sum(after[1] - before[1] for before, after in both)
    duration_s = busy_s / max(ended, last.busy, 1)
    load = max(busy_s + (last.waiting - first.waiting) * duration_s, 0.0) / seconds
    return slots_with_backlog(load, duration_s, promise_s, last.waiting)


class SlotsNeeded:
    """The last minute's snapshots of every pool, in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[str, deque[PoolSnapshot]] = {}

    def note(self, yard: Yard, state: YardState) -> dict[str, int]:
        """Keep the state, and return the slots that each pool needs by the last minute of them.

        A pool is missing until its supervisor reports for 10 s, and while it is down.
        """
        now_s, found = time.monotonic(), {}
        for pool in yard.pools:
            snapshot = snapshot_of(yard, pool, state, now_s)
            with self._lock:
                kept = self._kept.setdefault(pool.name, deque(maxlen=int(WINDOW_S)))
                while kept and now_s - kept[0].at_s > WINDOW_S:
                    kept.popleft()
                if not kept or now_s - kept[-1].at_s >= 1:
                    kept.append(snapshot)
                first = kept[0]
            if now_s - first.at_s >= SHORTEST_S and (slots := needed(first, snapshot, promise_of(yard, pool))):
                found[pool.name] = slots
        return found


def promise_of(yard: Yard, pool: Pool) -> float | None:
    """Return the shortest objective of a pool's queues in seconds; ``None`` without one, as for retry lanes."""
    lanes = yard.served_by(pool)
    objectives = [queue.objective_ms for queue in yard.queues if queue.name in lanes and queue.objective_ms is not None]
    return min(objectives) / 1_000 if objectives else None


def snapshot_of(yard: Yard, pool: Pool, state: YardState, at_s: float) -> PoolSnapshot:
    """Return a pool's figures. A lane that several pools serve counts for each of them."""
    lanes = yard.served_by(pool)
    each = (lane for stats in state.queues if not stats.paused for lane in (stats.live, stats.retry))
    reports = state.pools[pool.name].reports
    return PoolSnapshot(
        at_s,
        {report.member: (report.done, report.busy_ms / 1_000) for report in reports},
        sum(lane.waiting for lane in each if lane.name in lanes),
        sum(report.busy for report in reports),
    )
