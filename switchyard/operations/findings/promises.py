"""Burn rates of promises: how fast queues spend the share of their jobs that may start late.

A queue that is late at this moment is judged by its oldest job, see :mod:`switchyard.operations.findings.lateness`;
this is for one that is late again and again. Windows and rate: Google, *The Site Reliability Workbook*, chapter 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, FactStore, merged, queue_subject, starts
from switchyard.conf import declared_yard
from switchyard.console.formatting import whole_duration
from switchyard.operations.findings.finding import Button, Finding, FindingGroup

GROUP = FindingGroup("queues")
# One job in a hundred may start later than promised. Windows of an hour and of 5 min spend it 14.4 times as fast.
MAY_BE_LATE, BURN_RATE, FAST_BUCKETS, LEAST_LATE = 0.01, 14.4, 30, 10
# One burst is not again and again, and in a young yard it is all of the hour. What is over for a minute is past.
LEAST_SPELLS, PRESENT_BUCKETS = 3, 6


def look(store: FactStore, buckets: Sequence[tuple[int, Mapping[str, Counts]]], now_ms: int) -> Iterator[Finding]:
    """Judge every queue with a promise; the hour is read only of one whose last 5 min are bad."""
    for queue in declared_yard().queues:
        promise_ms, subject = queue.objective_ms, queue_subject(queue.name)
        if promise_ms is None:
            continue
        fast, present = (
            merged(found.get(subject, {}) for _, found in buckets[-count:]) for count in (FAST_BUCKETS, PRESENT_BUCKETS)
        )
        if not burns(fast, promise_ms) or not late(present, promise_ms):
            continue
        # The newest minutes are not written yet: of them the buckets are read.
        first = -(-buckets[0][0] // facts.MINUTE_MS) * facts.MINUTE_MS
        newest = [(at, found.get(subject, {})) for at, found in buckets if at >= first]
        told = [*store.minutes(subject, now_ms - facts.HOUR_MS, first).items(), *newest]
        slow = merged(counts for _, counts in told)
        if not burns(slow, promise_ms) or spells(told, promise_ms) < LEAST_SPELLS:
            continue
        name, promised, count = queue.name, whole_duration(promise_ms), late(slow, promise_ms)
        of_hour = f"{count:,} of {starts(slow):,} jobs of the last hour started later than {promised}"
        then = "Its chart shows when: at a burst, at a schedule, or all the time."
        then += " Spread what is sent at once, or add slots."
        step, button = f"manage.py switchyard queues status {name}", Button(f"Show {name}", "switchyard-queue", name)
        seen, factor = f"{name} is late again and again: {of_hour}", float(count)
        yield GROUP.warning("burning", seen, "", step, name, then=then, button=button, factor=factor)


def late(counts: Counts, promise_ms: int) -> int:
    """Return the starts that were certainly later than promised: those of its own class may have been in time."""
    classes = (n for n in range(1, facts.CLASSES) if facts.LEAST_MS * 2 ** (n - 1) >= promise_ms)
    return sum(counts.get(facts.WAITS + n, 0) for n in classes)


def spells(told: Sequence[tuple[int, Counts]], promise_ms: int) -> int:
    """Return how many times late starts began: in minutes that follow one without any, by counts and their ms."""
    bad = {at // facts.MINUTE_MS for at, counts in told if late(counts, promise_ms)}
    return sum(minute - 1 not in bad for minute in bad)


def burns(counts: Counts, promise_ms: int) -> bool:
    """Return whether so many started late that the share which may be late is spent 14.4 times as fast."""
    count = late(counts, promise_ms)
    return count >= LEAST_LATE and count >= BURN_RATE * MAY_BE_LATE * starts(counts)
