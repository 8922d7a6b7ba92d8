"""Burn rates of promises: how fast queues spend the share of their jobs that may start late.

A queue that is late at this moment is judged by its oldest job, see :mod:`switchyard.operations.findings.lateness`;
this is for one that is late again and again. Windows and rate: Google, *The Site Reliability Workbook*, chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from switchyard.broker.stores.yard_facts import (
    CLASSES,
    HOUR_MS,
    LEAST_MS,
    WAITS,
    Counts,
    FactStore,
    merged,
    queue_subject,
    starts,
)
from switchyard.conf import declared_yard
from switchyard.console.formatting import whole_duration
from switchyard.operations.findings.finding import Act, Finding, FindingGroup

GROUP = FindingGroup("queues")
# One job in a hundred may start later than promised. Windows of an hour and of 5 min spend it 14.4 times as fast.
MAY_BE_LATE, BURN_RATE, FAST_BUCKETS, LEAST_LATE = 0.01, 14.4, 30, 10


def look(store: FactStore, buckets: Sequence[tuple[int, Mapping[str, Counts]]], now_ms: int) -> Iterator[Finding]:
    """Judge every queue with a promise; the hour is read only of one whose last 5 min are bad.

    Raises:
        BrokerError: the broker does not answer.
    """
    for queue in declared_yard().queues:
        promise_ms, subject = queue.objective_ms, queue_subject(queue.name)
        if promise_ms is None:
            continue
        fast = merged(found.get(subject, {}) for _, found in buckets[-FAST_BUCKETS:])
        if not burns(fast, promise_ms):
            continue
        slow = merged(store.minutes(subject, now_ms - HOUR_MS, now_ms).values())
        if burns(slow, promise_ms):
            yield _burning(queue.name, promise_ms, late(slow, promise_ms), starts(slow))


def late(counts: Counts, promise_ms: int) -> int:
    """Return the starts that were certainly later than promised: those of its own class may have been in time."""
    return sum(counts.get(WAITS + n, 0) for n in range(1, CLASSES) if LEAST_MS * 2 ** (n - 1) >= promise_ms)


def burns(counts: Counts, promise_ms: int) -> bool:
    """Return whether so many started late that the share which may be late is spent 14.4 times as fast."""
    count = late(counts, promise_ms)
    return count >= LEAST_LATE and count >= BURN_RATE * MAY_BE_LATE * starts(counts)


def _burning(queue: str, promise_ms: int, count: int, started: int) -> Finding:
    seen = (
        f"{queue} is late again and again: {count:,} of {started:,} jobs of the last hour started later than "
        f"{whole_duration(promise_ms)}"
    )
    then = (
        "Its chart shows when: at a burst, at a schedule, or all the time. Spread what is sent at once, or add slots."
    )
    step, act = f"manage.py switchyard queues status {queue}", Act(f"Show {queue}", "switchyard-queue", queue)
    return GROUP.finding("warning", "burning", seen, then, step, queue, then=then, act=act, factor=float(count))
