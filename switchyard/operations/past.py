"""An actor's own past: how long it usually runs, how often it is sent and fails, how much later it is usually due."""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final

from django.db import DatabaseError

from switchyard.broker.interface import facilities
from switchyard.broker.stores import yard_facts as facts
from switchyard.broker.stores.yard_facts import Counts, ends, failures, merged, percentile_ms, sent, span_of
from switchyard.history.fact_keeper import hours_of
from switchyard.operations.timeouts import answers_within

# Past days of which the same hour is compared, those of the weekend for themselves; and the fewest that are enough.
DAYS, LEAST_DAYS = 14, 3
# A young yard is compared with its last hours instead, without the last 15 minutes, in pieces of ten minutes.
LAST_MS, LEAST_PIECES = 3 * facts.HOUR_MS, 3  # of fewer, runs are usual and rates are not
# Nothing is usual of fewer runs, or sends.
LEAST_RUNS: Final = 50
SLOW_SHARE: Final = 0.88
# Share of two neighbouring classes from which their mean is taken for the median.
ALIKE: Final = 0.8
KEPT_S, EMPTY_S, DATABASE_S = 300.0, 10.0, 1.0


@dataclass(frozen=True, slots=True)
class Usual:
    """Usual figures of an actor, the medians of some hours.

    Args:
        basis: With what it is compared, as the end of a sentence.
        run_ms: Median run; ``None`` of fewer than ``LEAST_RUNS``. Nearly nine tenths take at most ``slow_ms``.
        wait_ms: Median wait.
        sent_a_minute: Median of the rates; ``None`` where sends are not known.
        mean_ms: Mean run, of which ``sql_ms`` in SQL, and ``processor_ms`` of a processor; 0 of too few runs.
        failing: Share of the attempts that fail, from 0 to 1.
        later: Share of the sends that are due in 2**n minutes or more, by n.
    """

    basis: str
    run_ms: float | None = None
    slow_ms: float | None = None
    wait_ms: float | None = None
    sent_a_minute: float | None = None
    mean_ms: float = 0.0
    sql_ms: float = 0.0
    processor_ms: float = 0.0
    failing: float | None = None
    later: tuple[float, ...] = ()


def usual_of(hours: Sequence[Counts], *, hour_ms: int, basis: str, rates: bool = True) -> Usual:
    """Return what is usual of some stretches of time, each ``hour_ms`` long; one hour alone changes little.

    ``rates``: there are enough of them to know how often it is sent, and fails.
    """
    total = merged(hours)
    runs, sends = sum(total.get(facts.RUNS + n, 0) for n in range(facts.CLASSES)), sent(total) if rates else 0
    enough = runs >= LEAST_RUNS
    failing = [failures(each) / ends(each) for each in hours if ends(each)] if rates else []
    later = [due_later(total, n) for n in range(facts.LATER_CLASSES)]
    return Usual(
        basis,
        run_ms=_median(median_ms(each, facts.RUNS) for each in hours) if enough else None,
        slow_ms=_median(percentile_ms(each, facts.RUNS, SLOW_SHARE) for each in hours) if enough else None,
        wait_ms=_median(median_ms(each, facts.WAITS) for each in hours) if enough else None,
        sent_a_minute=median(sent(each) for each in hours) * facts.MINUTE_MS / hour_ms if sends else None,
        mean_ms=total.get(facts.RUN_MS, 0) / runs if enough else 0.0,
        sql_ms=total.get(facts.SQL_MS, 0) / runs if enough else 0.0,
        processor_ms=total.get(facts.PROCESSOR_MS, 0) / runs if enough else 0.0,
        failing=median(failing) if enough and failing else None,
        later=tuple(count / sends for count in later) if sends >= LEAST_RUNS else (),
    )


def due_later(counts: Counts, n: int) -> int:
    """Return the sends that were due in 2**n minutes or more."""
    return sum(counts.get(facts.LATER + more, 0) for more in range(n, facts.LATER_CLASSES))


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def median_ms(counts: Counts, first: int) -> float | None:
    """Return the median of waits or runs (``WAITS`` or ``RUNS``) in ms: where most are of two classes, their mean."""
    classes = [counts.get(first + number, 0) for number in range(facts.CLASSES)]
    n = max(range(facts.CLASSES - 1), key=lambda n: classes[n] + classes[n + 1])
    alike, low = classes[n] + classes[n + 1], facts.LEAST_MS * 2.0 ** (n - 1) if n else 0.0
    # The others took three quarters of their class's end, give or take a quarter.
    quarter_ms = sum(count * facts.LEAST_MS * 2.0**k / 4 for k, count in enumerate(classes) if k not in (n, n + 1))
    alike_ms = counts.get(facts.WAIT_MS if first == facts.WAITS else facts.RUN_MS, 0) - 3 * quarter_ms
    known = alike and alike >= ALIKE * sum(classes) and quarter_ms < alike_ms / 5
    if known and low < alike_ms / alike <= 4 * (low or facts.LEAST_MS):
        return alike_ms / alike
    return percentile_ms(counts, first, 0.5)  # interpolated within its class


def same_hours(hour: int) -> list[int]:
    """Return the same hour of past days: of weekends on a weekend, of other days else. Hours count from the epoch."""
    return [before for back in range(1, DAYS + 1) if _weekend(before := hour - 24 * back) == _weekend(hour)]


def _weekend(hour: int) -> bool:
    return datetime.fromtimestamp(hour * 3_600, UTC).weekday() >= 5


class Past:
    """Usual figures of every subject at this hour, read again every five minutes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read_s = float("-inf")
        self._usual: Mapping[str, Usual] = {}

    def usual(self, now_ms: int) -> Mapping[str, Usual]:
        """Return it by subject, see :mod:`switchyard.broker.stores.yard_facts`."""
        with self._lock:
            if time.monotonic() - self._read_s >= (KEPT_S if self._usual else EMPTY_S):
                self._usual = usual_at(now_ms)
                self._read_s = time.monotonic()
            return self._usual

    def clear(self) -> None:
        self._read_s = float("-inf")


def usual_at(now_ms: int) -> dict[str, Usual]:
    """Return what is usual of every subject at this hour: of past days, or of the last hours in a young yard."""
    found = _stored(same_hours(now_ms // facts.HOUR_MS))
    known = {hour for of_subject in found.values() for hour in of_subject}
    if len(known) >= LEAST_DAYS:
        parts = {subject: [of.get(hour, {}) for hour in sorted(known)] for subject, of in found.items()}
        return {name: usual_of(each, hour_ms=facts.HOUR_MS, basis="at this hour") for name, each in parts.items()}
    pieces = [
        piece
        for start in range(span_of(now_ms - LAST_MS), span_of(now_ms - facts.RECENT_MS), facts.SPAN_MS)
        if (piece := facilities().facts.all_minutes(start, start + facts.SPAN_MS))
    ]
    rates, subjects = len(pieces) >= LEAST_PIECES, {subject for piece in pieces for subject in piece}
    basis = "in the hours before" if rates else "before"
    return {
        name: usual_of([piece.get(name, {}) for piece in pieces], hour_ms=facts.SPAN_MS, basis=basis, rates=rates)
        for name in subjects
    }


def _stored(hours: Iterable[int]) -> dict[str, dict[int, dict[int, int]]]:
    """Return the stored counts of some hours, by subject and hour; none without the database."""
    with suppress(DatabaseError), answers_within(DATABASE_S):
        return hours_of(None, hours)
    return {}


def day_of_all(now_ms: int) -> dict[str, dict[int, int]]:
    """Return the counts of every subject in the last 24 hours: stored hours, and minutes since the last of them.

    Without the database only the minutes of the last two hours.
    """
    hour = now_ms // facts.HOUR_MS
    found = _stored(range(hour - 23, hour))
    stored = max((at for of_subject in found.values() for at in of_subject), default=hour - 2)
    parts: dict[str, list[Counts]] = {subject: list(of.values()) for subject, of in found.items()}
    for subject, counts in facilities().facts.all_minutes((stored + 1) * facts.HOUR_MS, now_ms).items():
        parts.setdefault(subject, []).append(counts)
    return {subject: merged(each) for subject, each in parts.items()}


def slow_runs(counts: Counts, over_ms: float) -> tuple[int, int]:
    """Return how many runs took longer than a time, those of its own class not among them, and how many there were."""
    runs = [counts.get(facts.RUNS + n, 0) for n in range(facts.CLASSES)]
    return sum(count for n, count in enumerate(runs) if n and facts.LEAST_MS * 2 ** (n - 1) >= over_ms), sum(runs)


PAST = Past()
