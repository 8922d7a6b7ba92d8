"""Ended jobs of an actor from the history: counts, durations, failures of the last hour and day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.console.formatting import duration
from switchyard.history.models import JobRow

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Rows that one page reads; an actor with more a day is counted over a shorter time, which the page says.
LOOKED_THROUGH = 10_000


class EndedRow(NamedTuple):
    """One row of the history, with the columns of the figures."""

    finished_at: int
    state: str
    wait_ms: int | None
    run_ms: int | None
    failed_at: int | None
    fingerprint: str | None
    error_type: str
    error_message: str
    release: str


@dataclass(frozen=True, slots=True)
class HistoryCount:
    """Jobs that ended within a time.

    Args:
        span_ms: The time; shorter than asked for where more than ``LOOKED_THROUGH`` jobs ended.
        cut: Whether it is shorter.
        outcomes: State -> jobs, most frequent first.
    """

    span_ms: int
    cut: bool
    jobs: int
    outcomes: tuple[tuple[str, int], ...]
    run_ms: tuple[int, int] | None
    wait_ms: tuple[int, int] | None

    @property
    def span(self) -> str:
        """The time as text."""
        return duration(self.span_ms)

    @property
    def a_minute(self) -> str:
        """Jobs a minute as text."""
        rate = self.jobs * 60_000 / self.span_ms
        return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}" if rate >= 0.095 else f"{rate:.2f}"


@dataclass(frozen=True, slots=True)
class HistoryFailure:
    """Jobs with a failed attempt of one fingerprint; ``release`` is that of the first."""

    fingerprint: str
    exception: str
    error: str
    jobs: int
    first_at: datetime
    last_at: datetime
    release: str = ""


@dataclass(frozen=True, slots=True)
class ActorHistory:
    """Figures of one actor from the history; an actor may keep a part of its jobs only (option ``history``).

    Args:
        dead_since: Release of every job that gave up, where jobs of another release ended before and none gave up.
    """

    hour: HistoryCount
    day: HistoryCount
    failures: tuple[HistoryFailure, ...]
    dead_since: str = ""


def of_actor(actor: str) -> ActorHistory:
    """Return an actor's figures; reads at most ``LOOKED_THROUGH`` rows, by one index.

    Raises:
        django.db.DatabaseError: the database did not answer.
    """
    now = now_ms()
    rows = JobRow.objects.filter(actor=actor, finished_at__gte=now - DAY_MS).order_by("-finished_at", "-pk")
    found = [EndedRow(*row) for row in rows.values_list(*EndedRow.__annotations__)[: LOOKED_THROUGH + 1]]
    cut_at = found[LOOKED_THROUGH].finished_at if len(found) > LOOKED_THROUGH else 0
    found = found[:LOOKED_THROUGH]
    return ActorHistory(
        hour=_count([row for row in found if row.finished_at >= now - HOUR_MS], HOUR_MS, now, cut_at),
        day=_count(found, DAY_MS, now, cut_at),
        failures=tuple(_failures(found)),
        dead_since=_dead_since(found),
    )


def _dead_since(rows: Sequence[EndedRow]) -> str:
    dead = [row for row in rows if row.state == "dead"]
    releases = {row.release for row in dead}
    if len(releases) != 1 or "" in releases:
        return ""
    first = min(row.finished_at for row in dead)
    [release] = releases
    return release if any(row.finished_at < first and row.release not in ("", release) for row in rows) else ""


def _count(rows: Sequence[EndedRow], span_ms: int, now: int, cut_at: int) -> HistoryCount:
    cut = cut_at > now - span_ms
    states = Counter(row.state for row in rows)
    return HistoryCount(
        span_ms=max(now - cut_at, 1) if cut else span_ms,
        cut=cut,
        jobs=len(rows),
        outcomes=tuple(states.most_common()),
        run_ms=_percentiles(row.run_ms for row in rows),
        wait_ms=_percentiles(row.wait_ms for row in rows),
    )


def _percentiles(values: Iterable[int | None]) -> tuple[int, int] | None:
    """Return the median and the 95th percentile."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    return known[(len(known) - 1) // 2], known[-(-95 * len(known) // 100) - 1]


def _failures(rows: Iterable[EndedRow]) -> list[HistoryFailure]:
    groups: dict[str, list[EndedRow]] = {}
    for row in rows:
        if row.failed_at is not None and row.fingerprint:
            groups.setdefault(row.fingerprint, []).append(row)
    found = []
    for fingerprint, failed in groups.items():
        moments = [row.failed_at for row in failed if row.failed_at is not None]
        newest = failed[0]
        found.append(
            HistoryFailure(
                fingerprint=fingerprint,
                exception=newest.error_type,
                error=newest.error_message.partition("\n")[0][:200],
                jobs=len(failed),
                first_at=datetime_of(min(moments)),
                last_at=datetime_of(max(moments)),
                release=min(failed, key=lambda row: row.failed_at or 0).release,
            )
        )
    return found
