"""Reads of the history: one job, its attempts and children, and pages of the jobs that match a filter.

One condition of a filter chooses the index, always the same one: left alone, a database without fresh statistics may
scan millions of rows for a rare state. The others are written so that no index fits them, and are checked on at most
``LOOKED_THROUGH`` rows a page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, NamedTuple

from django.db.models import CharField, Func, Q, QuerySet

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.stores.history_streams import HistoryStreams
from switchyard.broker.stores.job_record import Job, read_json
from switchyard.console.formatting import duration
from switchyard.history.filters import TAG, Filter, search_text
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.long_running import HISTORY_WRITER, anyone_leads

LAST_ROW = 10**18 - 1
_CURSOR = re.compile(r"([0-9]{1,15})-([0-9]{1,18})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Time (ms since the epoch) and number of the last row that was looked at. As text: ``1763728200000-42``."""

    at: int
    row: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Return the cursor in a text; ``ValueError`` where there is none."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError(f"after: {text!r:.100} is not a place in a list; begin with its first page")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.at}-{self.row}"


LIMIT: Final = 50
# From so many ended jobs, of so long, the next starts of a lane are reckoned.
LAST_RUNS: Final = 500
RECENT_MS: Final = 3_600_000
# Rows that one page looks through where a condition has no index of its own, and jobs that have a searched value.
LOOKED_THROUGH: Final = 10_000
CHUNK: Final = 500
# Columns with an index of their own, from the rarest value to the commonest.
INDEXED: Final = ("parent", "owner", "actor", "release", "queue")


class HistoryPage(NamedTuple):
    """A page of a list, newest first, and the place from which the next one goes on; ``None`` at the end.

    Where the rows that were looked through hold fewer than a page, this one is short, even empty.
    """

    rows: list[JobRow]
    after: Cursor | None


def find(job_id: str) -> JobRow | None:
    """Return a job's row, or ``None`` where the history has none."""
    return JobRow.objects.filter(job_id=job_id).first()


def find_many(job_ids: Sequence[str]) -> dict[str, Job]:
    """Return the jobs that the history has of some, by id, at most a page of them."""
    return {row.job_id: job_of_row(row) for row in JobRow.objects.filter(job_id__in=job_ids[:LIMIT])}


def were_enqueued(job_ids: Sequence[str], queue: str = "") -> set[str]:
    """Return those of some jobs that the broker or the history knows.

    Args:
        queue: Where they were sent to, without its lane. They may have been moved to another, which need not answer. By
            default all are asked, and must.

    Raises:
        BrokerError: the broker does not answer. django.db.DatabaseError: the database does not.
    """
    records = facilities().records
    states = dict(zip(job_ids, records.states(job_ids, queues=(queue,) if queue else ()), strict=True))
    left = [job_id for job_id, state in states.items() if state is None]
    if queue:
        with suppress(BrokerUnavailable):
            states |= zip(left, records.states(left, partly=True), strict=True)
    states |= JobRow.objects.filter(job_id__in=left).values_list("job_id", "state")
    return {job_id for job_id, state in states.items() if state is not None}


def attempts(job_id: str) -> list[Job]:
    """Return a job as each attempt left it that failed or kept log lines, in order."""
    return list(map(job_of_attempt, AttemptRow.objects.filter(job_id=job_id).order_by("generation", "attempt")))


def recent_runs(queue: str, lane: str, at: int) -> list[tuple[int, int | None]]:
    """Return when runs of a lane started that ended within the hour before a time, and their waits, all in ms.

    The last first, at most ``LAST_RUNS``.
    Starts before the first of these ends are left out: others of that time are missing.
    """
    ended = JobRow.objects.filter(queue=queue, lane=lane, finished_at__gt=at - RECENT_MS, finished_at__lte=at)
    rows = ended.order_by("-finished_at", "-id").values_list("started_at", "wait_ms", "finished_at")[:LAST_RUNS]
    found = list(rows)
    first = found[-1][2] if len(found) == LAST_RUNS else at - RECENT_MS
    return [(started, wait) for started, wait, _ in found if started is not None and started >= first]


def children(job_id: str) -> list[Job]:
    """Return jobs that ended and were sent inside a job, newest first, at most a page of them."""
    return list(map(job_of_row, JobRow.objects.filter(parent=job_id).order_by("-finished_at", "-id")[:LIMIT]))


def search(wanted: Filter, *, after: Cursor | None = None, limit: int = LIMIT) -> HistoryPage:
    """Return the jobs that match a filter, newest end first; newest failure first where it asks for failures.

    ``failures``, ``error`` and ``fingerprint`` ask for failures. Jobs that are to be retried have not ended: only these
    conditions and the state ``retrying`` find them.
    """
    place = time_column(wanted)
    if values := searched_values(wanted):
        return _search_by_value(wanted, values, place, after, limit)
    picked, place = chosen(wanted, place)
    rows = between(JobRow.objects.filter(picked), place, wanted, after)
    rest = conditions(wanted)
    if not rest:
        return _cut(list(rows[: limit + 1]), place, limit)
    bound = rows.values_list(place, "pk")[LOOKED_THROUGH - 1 : LOOKED_THROUGH].first()
    if bound is not None:
        at, row = bound
        rows = rows.filter(Q(**{f"{place}__gt": at}) | Q(**{place: at}, pk__gte=row), **{f"{place}__gte": at})
    page = _cut(list(matching(rows, rest)[: limit + 1]), place, limit)
    return page if page.after or bound is None else HistoryPage(page.rows, Cursor(*bound))


def time_column(wanted: Filter) -> str:
    """Return the column by whose time a filter's jobs are chosen: that of the failure, or of the end."""
    return "failed_at" if wanted.failures or wanted.fingerprint or wanted.error else "finished_at"


def chosen(wanted: Filter, place: str) -> tuple[Q, str]:
    """Return the condition whose index is used, and the column of that index that orders the list."""
    if wanted.fingerprint:
        return Q(fingerprint=wanted.fingerprint, failed_at__isnull=False), "failed_at"
    if place == "failed_at":
        return Q(failed_at__isnull=False), "failed_at"
    if wanted.states and "succeeded" not in wanted.states:
        return Q(not_succeeded_at__isnull=False), "not_succeeded_at"
    name = next((name for name in INDEXED if getattr(wanted, name)), "")
    return Q(**{name: getattr(wanted, name)}) if name else Q(), "finished_at"


def conditions(wanted: Filter) -> list[Q]:
    """Return all conditions but time and searched values, none of which an index fits."""
    names = (name for name in (*INDEXED, "fingerprint") if getattr(wanted, name))
    found = [Q(**{f"plain_{name}": getattr(wanted, name)}) for name in names]
    if wanted.error:
        found.append(Q(error_type=wanted.error) | Q(error_message__icontains=wanted.error))
    for column, name in (("wait_ms", "waited"), ("run_ms", "ran")):
        low, high = wanted.span_ms(name)
        bounds = ((f"{column}__gt", low), (f"{column}__lte", high))
        found += [Q(**{name: ms}) for name, ms in bounds if ms is not None]
    if wanted.states:
        found.append(Q(plain_state__in=wanted.states))
    elif time_column(wanted) == "finished_at":
        found.append(~Q(plain_state="retrying"))
    return found


class _Plain(Func):
    """A column that no index fits."""

    template = "(%(expressions)s || '')"
    output_field: ClassVar[CharField[Any, Any]] = CharField()


def matching(rows: QuerySet[JobRow], wanted: list[Q]) -> QuerySet[JobRow]:
    """Return the rows for which all of :func:`conditions` hold."""
    names = (*INDEXED, "fingerprint", "state")
    return rows.alias(**{f"plain_{name}": _Plain(name) for name in names}).filter(*wanted)


def between(rows: QuerySet[JobRow], place: str, wanted: Filter, after: Cursor | None) -> QuerySet[JobRow]:
    """Return the rows of a filter's time that follow a place in the list, in the list's order."""
    if (since := wanted.since_ms) is not None:
        rows = rows.filter(**{f"{place}__gte": since})
    if (until := wanted.until_ms) is not None:
        rows = rows.filter(**{f"{place}__lt": until})
    if after is not None:
        later = Q(**{f"{place}__lt": after.at}) | Q(pk__lt=after.row)
        rows = rows.filter(later, **{f"{place}__lte": after.at})
    return rows.order_by(f"-{place}", "-pk")


def _cut(found: list[JobRow], place: str, limit: int) -> HistoryPage:
    if len(found) <= limit:
        return HistoryPage(found, None)
    return HistoryPage(found[:limit], Cursor(getattr(found[limit - 1], place), found[limit - 1].pk))


def searched_values(wanted: Filter) -> list[tuple[str, str]]:
    """Return the names and values of a filter that jobs are found by: an argument, a tag."""
    wants = [*([wanted.argument] if wanted.argument else []), *([(TAG, wanted.tag)] if wanted.tag else [])]
    return [(name, search_text(value) or "") for name, value in wants]


def _search_by_value(
    wanted: Filter, values: list[tuple[str, str]], place: str, after: Cursor | None, limit: int
) -> HistoryPage:
    """Return a page of the jobs that have all values; the newest jobs of the first value are looked through."""
    # A job may have failed long before it ended.
    upto = after.at if after is not None and place == "finished_at" else None
    ids, bound = _whole_milliseconds(newest_having(values[0], wanted, place, upto))
    rest = [*conditions(wanted), Q(**{f"{place}__isnull": False})]
    found: list[JobRow] = []
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        names = having_all([job_id for job_id, _ in chunk], values[1:])
        rows = between(JobRow.objects.filter(job_id__in=names), place, wanted, after)
        found += matching(rows, rest)
        # Jobs of the chunk's last millisecond may follow in the next one.
        if place == "finished_at" and sum(row.finished_at > chunk[-1][1] for row in found) > limit:
            break
    found.sort(key=lambda row: (getattr(row, place), row.pk), reverse=True)
    page = _cut(found, place, limit)
    return HistoryPage(page.rows, bound) if page.after is None and place == "finished_at" else page


def newest_having(value: tuple[str, str], wanted: Filter, time: str, upto: int | None) -> list[tuple[str, int]]:
    """Return the newest jobs of a filter's time that have a value, with their ends, at most ``LOOKED_THROUGH``."""
    having = SearchValue.objects.filter(name=value[0], value=value[1])
    if upto is not None:
        having = having.filter(finished_at__lte=upto)
    if time == "finished_at" and (until := wanted.until_ms) is not None:
        having = having.filter(finished_at__lt=until)
    if (since := wanted.since_ms) is not None:
        having = having.filter(finished_at__gte=since)
    return list(having.order_by("-finished_at", "-job_id").values_list("job_id", "finished_at")[:LOOKED_THROUGH])


def having_all(job_ids: list[str], values: Sequence[tuple[str, str]]) -> list[str]:
    """Return those of some jobs that have all of some values."""
    for name, value in values:
        both = SearchValue.objects.filter(job_id__in=job_ids, name=name, value=value)
        job_ids = list(both.values_list("job_id", flat=True))
    return job_ids


def _whole_milliseconds(ids: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], Cursor | None]:
    """Return the jobs to look through, and the place of those that are left for the next page."""
    if len(ids) < LOOKED_THROUGH:
        return ids, None
    last = ids[-1][1]
    whole = [pair for pair in ids if pair[1] != last]  # more jobs may have ended in the last millisecond
    return (whole, Cursor(last, LAST_ROW)) if whole else (ids, Cursor(last, 0))


# A writer that keeps up is a second or two behind.
LATE_MS: Final = 10_000


def why_missing() -> str:
    """Return why a list lacks jobs that ended lately; empty when it has all, or the broker does not answer."""
    own = facilities()
    calls, keys = own.records.calls, own.records.keys
    try:
        backlog = HistoryStreams(calls, keys, (queue.name for queue in own.yard.queues)).backlog()
        ages = [each.oldest_age_ms for each in backlog if each.oldest_age_ms is not None]
        if not ages:
            return ""
        leads = anyone_leads(calls, keys, HISTORY_WRITER)
    except BrokerError:
        return ""
    if leads and max(ages) < LATE_MS:
        return ""
    no_leader = "no history writer leads, start `manage.py switchyard runhistory`"
    cause = "the history's writer is behind" if leads else no_leader
    return f"those that ended in the last {duration(max(ages))} are not all in the history: {cause}"


# Columns of jobs and attempts, then of jobs alone, that a job has under the same name.
RAN: Final = ("state", "generation", "started_at", "finished_at", "lane", "pool", "worker", "release")
SENT: Final = ("actor", "queue", "attempts", "enqueued_at", "failed_at", "wait_ms")


def job_of_row(row: JobRow) -> Job:
    """Return a job from its row; its error is that of the last failure, also of a job that succeeded since."""
    origin = {"request": row.request_id, "user": row.user, "schedule": row.schedule}
    return replace(
        _ran(row),
        **{name: getattr(row, name) for name in SENT},
        owner=row.owner or "",
        tags=tuple(map(str, row.tags)) if isinstance(row.tags, list) else (),
        parent=row.parent or "",
        origin={name: value for name, value in origin.items() if value},
        result=read_json(row.result),
        arguments=stored_arguments(row.arguments),
        kept_in=row.kept_in or "",
        at=row.finished_at,
    )


def ended_job(row: JobRow) -> Job:
    """Return a job that has ended as its record had it: without a failure before a later attempt."""
    job = job_of_row(row)
    return job if job.state == "dead" else replace(job, error=None)


def job_of_attempt(row: AttemptRow) -> Job:
    """Return a job as an attempt left it, without what all its attempts have in common."""
    return replace(_ran(row), attempts=row.attempt, logs=row.logs)


def _ran(row: JobRow | AttemptRow) -> Job:
    error = {"type": row.error_type, "message": row.error_message} if row.error_type else None
    known: dict[str, Any] = {name: getattr(row, name) for name in RAN}
    return Job(row.job_id, **known, reason=row.reason or None, error=error, fingerprint=row.fingerprint or "")


def stored_arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments in a row, by name; ``None`` when they were cut, and are no JSON."""
    found = read_json(text) if text else {}
    return found if isinstance(found, dict) else None
