"""Figures of an actor: its ended jobs from the history, and the metrics of the workers on this machine."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from django.db.models import Count, Max

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.conf import switchyard_settings
from switchyard.console.formatting import duration
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import first_seen
from switchyard.history.models import JobRow
from switchyard.middleware.metrics import BUCKETS_S
from switchyard.operations.metrics import WorkerMetrics

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
# Rows that one page reads; an actor with more a day is counted over a shorter time, which the page says.
LOOKED_THROUGH = 10_000
MOST_GROUPS = 20


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
    """Jobs that ended within a time, which is cut where more than ``LOOKED_THROUGH`` ended.

    ``outcomes`` has states with their jobs, most frequent first.
    """

    span_ms: int
    cut: bool
    jobs: int
    outcomes: tuple[tuple[str, int], ...]
    run_ms: tuple[int, int] | None
    wait_ms: tuple[int, int] | None

    @property
    def span(self) -> str:
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

    ``dead_since`` is the release of every job that gave up, where jobs of another ended before and none gave up.
    """

    hour: HistoryCount
    day: HistoryCount
    failures: tuple[HistoryFailure, ...]
    dead_since: str = ""


def of_actor(actor: str) -> ActorHistory:
    """Return an actor's figures; reads at most ``LOOKED_THROUGH`` rows, by one index."""
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


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Failures of one actor with one fingerprint.

    Args:
        letters: Open dead letters; ``None`` for a user who may not see them.
        jobs: Jobs of the last day, retried ones too; ``None`` for a user who may not see them.
        first_at: Of every letter of the fingerprint, also of those that are no longer open.
        release: Of the first failure; "" where the history does not reach back to it.
    """

    fingerprint: str
    exception: str
    error: str
    letters: int | None
    jobs: int | None
    first_at: datetime
    last_at: datetime
    release: str = ""


def failures_of(actor: str, ended: Iterable[HistoryFailure] | None, *, letters: bool) -> list[FailureGroup]:
    """Return an actor's failures, the newest first: those from the history, unless ``None``, and with ``letters``."""
    groups = {group.fingerprint: group for group in _open_letters(actor)} if letters else {}
    for failure in ended or ():
        known = groups.get(failure.fingerprint)
        is_first = known is None or failure.first_at <= known.first_at
        groups[failure.fingerprint] = FailureGroup(
            fingerprint=failure.fingerprint,
            exception=failure.exception,
            error=failure.error,
            letters=known.letters if known else (0 if letters else None),
            jobs=failure.jobs,
            first_at=min(failure.first_at, known.first_at) if known else failure.first_at,
            last_at=max(failure.last_at, known.last_at) if known else failure.last_at,
            release=failure.release if is_first else "",
        )
    return sorted(groups.values(), key=lambda group: group.last_at, reverse=True)[:MOST_GROUPS]


def _open_letters(actor: str) -> list[FailureGroup]:
    rows = list(
        DeadLetter.objects.filter(is_open=1, actor=actor)
        .order_by()
        .values("fingerprint")
        .annotate(letters=Count("id"), last_at=Max("died_at"), sample=Max("id"))
        .order_by("-last_at")[:MOST_GROUPS]
    )
    first = first_seen([row["fingerprint"] for row in rows])
    samples = DeadLetter.objects.only("exception", "error").in_bulk([row["sample"] for row in rows])
    return [
        FailureGroup(
            fingerprint=row["fingerprint"],
            exception=samples[row["sample"]].exception,
            error=samples[row["sample"]].error.partition("\n")[0][:200],
            letters=row["letters"],
            jobs=0,
            first_at=first[row["fingerprint"]],
            last_at=row["last_at"],
        )
        for row in rows
    ]


DURATION, WAIT, ENDED = (
    "switchyard_message_duration_seconds", "switchyard_message_wait_seconds", "switchyard_messages",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a histogram in ms, each the upper bound of its bucket; ``None`` beyond the last bucket."""

    count: int
    p50_ms: float | None
    p95_ms: float | None

    @property
    def median(self) -> str:
        return _at_most(self.p50_ms)

    @property
    def most(self) -> str:
        return _at_most(self.p95_ms)


@dataclass(frozen=True, slots=True)
class ActorMetrics:
    """Attempts of one actor on this machine, since its metrics folder was emptied; most frequent outcome first."""

    outcomes: tuple[tuple[str, int], ...]
    run: Percentiles | None
    wait: Percentiles | None

    @property
    def attempts(self) -> int:
        return sum(count for _, count in self.outcomes)


def of_this_machine(actor: str) -> ActorMetrics:
    """Return an actor's figures, summed over lanes and pools. Attempts beyond 500 actors are counted as "other"."""
    return all_of_this_machine().get(actor, ActorMetrics((), None, None))


def all_of_this_machine() -> dict[str, ActorMetrics]:
    """Return the figures of every actor that has run here, by its name."""
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    buckets: dict[str, defaultdict[str, defaultdict[float, float]]] = {
        DURATION: defaultdict(partial(defaultdict, float)),
        WAIT: defaultdict(partial(defaultdict, float)),
    }
    for family in WorkerMetrics(switchyard_settings().metrics_dir).collect():
        for sample in family.samples if family.name in (DURATION, WAIT, ENDED) else ():
            actor = sample.labels.get("actor", "")
            if family.name == ENDED and sample.name.endswith("_total") and sample.value:
                outcomes[actor][sample.labels["outcome"]] += int(sample.value)
            elif sample.name.endswith("_bucket"):
                buckets[family.name][actor][float(sample.labels["le"])] += sample.value
    return {
        actor: ActorMetrics(
            tuple(counted.most_common()), _spread(buckets[DURATION][actor]), _spread(buckets[WAIT][actor])
        )
        for actor, counted in outcomes.items()
    }


def _spread(buckets: dict[float, float]) -> Percentiles | None:
    bounds = sorted(buckets)
    count = int(buckets[bounds[-1]]) if bounds else 0
    if not count:
        return None

    def percentile(share: float) -> float | None:
        bound = next(each for each in bounds if buckets[each] >= share * count)
        return None if bound == float("inf") else bound * 1_000

    return Percentiles(count, percentile(0.5), percentile(0.95))


def _at_most(ms: float | None) -> str:
    return f"over {duration(BUCKETS_S[-1] * 1_000)}" if ms is None else f"≤ {duration(ms)}"
