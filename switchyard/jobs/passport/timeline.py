"""Steps of a job in the order of time: its enqueueing, starts, failures and end, and what people did to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from django.db import DatabaseError

from switchyard.audit.models import AuditEntry
from switchyard.audit.presentation import act_label
from switchyard.console.formatting import duration
from switchyard.console.times import as_time
from switchyard.jobs.passport.attempts import Attempt
from switchyard.jobs.passport.reading import Passport

MOST_ACTS: Final = 20
WORDS: Final = {
    "retrying": "Failed",
    "dead": "Failed and given up",
    "succeeded": "Succeeded",
    "cancelled": "Cancelled",
    "expired": "Expired",
}
FAILED: Final = ("retrying", "dead")


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One thing that happened to a job, or that is to happen.

    Args:
        at: ms since the epoch.
        mark: Its sign: ``open``, ``ok``, ``bad``, ``act`` of a person, ``next`` for what is to come.
        what: First words, such as ``Attempt 2 started``.
        note: The rest of the sentence.
        attempt: The attempt that began or ended.
        more: Second line.
        origin: It is the enqueueing: who sent the job belongs to it.
        starts: It is the start of its attempt: worker and release belong to it.
        day: Its day, where it is another one than that of the event before.
    """

    at: int
    mark: str
    what: str
    note: str = ""
    attempt: Attempt | None = None
    more: str = ""
    origin: bool = False
    starts: bool = False
    day: str = ""

    moment = as_time("at")

    @property
    def clock(self) -> str:
        """Time of the day with milliseconds."""
        return f"{self.moment:%H:%M:%S}.{self.at % 1_000:03d}"


def timeline_of(job: Passport, acts: Sequence[AuditEntry] = ()) -> list[TimelineEvent]:
    """Return what happened to a job, the first thing first."""
    found = [*_enqueued(job), *_attempts(job), *_end(job), *map(_act, acts)]
    ordered = sorted(found, key=lambda event: event.at)  # stable: what has one time keeps its order
    return list(_with_days([*ordered, *_next(job)]))


def acts_on(job: Passport) -> list[AuditEntry]:
    """Return the newest acts of people on a job by its id; those on its group or filter are not among them."""
    try:
        return list(AuditEntry.objects.filter(target=job.id).order_by("-id")[:MOST_ACTS])
    except DatabaseError:
        return []  # the page says that the database is away


def _enqueued(job: Passport) -> Iterator[TimelineEvent]:
    if job.enqueued_at is not None:
        yield TimelineEvent(job.enqueued_at, "open", "Enqueued", origin=True)


def _attempts(job: Passport) -> Iterator[TimelineEvent]:
    ready = job.enqueued_at
    for each in job.attempts:
        if each.started_at is None:
            continue
        waited = f" after {duration(each.started_at - ready)}" if ready is not None and each.started_at >= ready else ""
        more = f"after {each.generation} requeue{'' if each.generation == 1 else 's'}" if each.generation else ""
        yield TimelineEvent(each.started_at, "open", f"Attempt {each.number} started", waited, each, more, starts=True)
        if each.finished_at is not None:
            ready = each.finished_at
            yield _ended(job, each)


def _ended(job: Passport, each: Attempt) -> TimelineEvent:
    assert each.finished_at is not None  # noqa: S101  for the type checker; the caller has looked
    more = ""
    if each.state == "retrying":
        is_last = each is job.attempts[-1]
        more = "Waits for its retry." if is_last and job.state == "retrying" else "Retried."
    mark = "bad" if each.state in FAILED else "ok" if each.state == "succeeded" else "open"
    ran = f" after {duration(each.run_ms)}" if each.run_ms is not None else ""
    return TimelineEvent(each.finished_at, mark, WORDS.get(each.state, each.state), ran, each, more)


def _end(job: Passport) -> Iterator[TimelineEvent]:
    """Yield the end of a job that no attempt of it has, as that of one that was cancelled while it waited."""
    if not job.ended or job.finished_at is None or (job.attempts and job.attempts[-1].state == job.state):
        return
    reason = f": {job.reason.replace('_', ' ')}" if job.reason else ""
    mark = "bad" if job.state == "dead" else "open"
    yield TimelineEvent(job.finished_at, mark, WORDS.get(job.state, job.state), reason)


def _next(job: Passport) -> Iterator[TimelineEvent]:
    if not job.ended and job.state != "running" and job.due_at is not None:
        what = "Retry due" if job.state == "retrying" else "Due"
        reason = f", {job.reason.replace('_', ' ')}" if job.reason and job.reason != "delay" else ""
        yield TimelineEvent(job.due_at, "next", what, reason)


def _act(entry: AuditEntry) -> TimelineEvent:
    failed = f", failed: {entry.error}" if entry.outcome == AuditEntry.Outcome.FAILED else ""
    more = f"“{entry.reason}”" if entry.reason else ""
    return TimelineEvent(
        int(entry.at.timestamp() * 1_000), "act", act_label(entry), f" by {entry.who}{failed}", more=more
    )


def _with_days(events: Sequence[TimelineEvent]) -> Iterator[TimelineEvent]:
    last = ""
    for event in events:
        day = f"{event.moment.day} {event.moment:%b %Y}"
        yield event if day == last else replace(event, day=day)
        last = day
