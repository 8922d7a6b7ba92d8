"""Steps of a job in the order of time: its enqueueing, starts, failures and end, and what people did to it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from django.db import DatabaseError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import act_label
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.stores.job_record import Job
from switchyard.console.formatting import duration
from switchyard.jobs.presentation import FAILED, Passport

MOST_ACTS: Final = 20
WORDS: Final = {
    "retrying": "Failed",
    "dead": "Failed and given up",
    "succeeded": "Succeeded",
    "cancelled": "Cancelled",
    "expired": "Expired",
}


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One thing that happened to a job, or that is to happen.

    Args:
        mark: Its sign: ``open``, ``ok``, ``bad``, ``act`` of a person, ``next`` for what is to come.
        what, note, more: First words, such as ``Attempt 2 started``, the rest of the sentence, and the second line.
        attempt: The attempt that began or ended.
        origin: It is the enqueueing: who sent the job belongs to it.
        starts: It is the start of its attempt: worker and release belong to it.
        day: Its day, where it is another one than that of the event before.
    """

    at: int
    mark: str
    what: str
    note: str = ""
    attempt: Job | None = None
    more: str = ""
    origin: bool = False
    starts: bool = False
    day: str = ""

    @property
    def moment(self) -> datetime:
        return datetime_of(self.at)

    @property
    def clock(self) -> str:
        """Time of the day with milliseconds."""
        return f"{self.moment:%H:%M:%S}.{self.at % 1_000:03d}"


def timeline_of(known: Passport, acts: Sequence[AuditEntry] = ()) -> list[TimelineEvent]:
    """Return what happened to a job, the first thing first."""
    found = [*_attempts(known), *_end(known), *map(_act, acts)]
    if known.job.enqueued_at is not None:
        found.insert(0, TimelineEvent(known.job.enqueued_at, "open", "Enqueued", origin=True))
    ordered = sorted(found, key=lambda event: event.at)  # stable: what has one time keeps its order
    return list(_with_days([*ordered, *_next(known.job)]))


def acts_on(job: Job) -> list[AuditEntry]:
    """Return the newest acts of people on a job by its id; those on its group or filter are not among them."""
    try:
        return list(AuditEntry.objects.filter(target=job.id).order_by("-id")[:MOST_ACTS])
    except DatabaseError:
        return []  # the page says that the database is away


def _attempts(known: Passport) -> Iterator[TimelineEvent]:
    ready = known.job.enqueued_at
    for each in known.attempts:
        if each.started_at is None:
            continue
        waited = f" after {duration(each.started_at - ready)}" if ready is not None and each.started_at >= ready else ""
        more = f"after {each.generation} requeue{'' if each.generation == 1 else 's'}" if each.generation else ""
        yield TimelineEvent(
            each.started_at, "open", f"Attempt {each.attempts} started", waited, each, more, starts=True
        )
        if each.finished_at is None:
            continue
        ready, more = each.finished_at, ""
        if each.state == "retrying":
            is_last = each is known.attempts[-1]
            more = "Waits for its retry." if is_last and known.job.state == "retrying" else "Retried."
        mark = "bad" if each.state in FAILED else "ok" if each.state == "succeeded" else "open"
        ran = f" after {duration(each.run_ms)}" if each.run_ms is not None else ""
        yield TimelineEvent(each.finished_at, mark, WORDS.get(each.state, each.state), ran, each, more)


def _end(known: Passport) -> Iterator[TimelineEvent]:
    """Yield the end of a job that no attempt of it has, as that of one that was cancelled while it waited."""
    job = known.job
    if not job.ended or job.finished_at is None or (known.attempts and known.attempts[-1].state == job.state):
        return
    reason = f": {job.reason.replace('_', ' ')}" if job.reason else ""
    mark = "bad" if job.state == "dead" else "open"
    yield TimelineEvent(job.finished_at, mark, WORDS.get(job.state, job.state), reason)


def _next(job: Job) -> Iterator[TimelineEvent]:
    if not job.ended and job.state != "running" and job.next_attempt_at is not None:
        what = "Retry due" if job.state == "retrying" else "Due"
        reason = f", {job.reason.replace('_', ' ')}" if job.reason and job.reason != "delay" else ""
        yield TimelineEvent(job.next_attempt_at, "next", what, reason)


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


WIDTH = 1_000
# A shorter span is drawn this wide, so that it is seen; its text is the table's.
LEAST = 3
# Units that a letter of a label takes, and the least distance between two marks of the axis.
LETTER, BETWEEN_MARKS = 7, 120
SIGNS = {"live": "▶", "bad": "✕", "ok": "✓"}
STEPS_MS = (1, 2, 5, 10, 15, 20, 30, 60)


def picture_of(known: Passport) -> dict[str, Any] | None:
    """Return the picture of a job for its template, or ``None`` when no time of it is known.

    ``waits`` and ``runs`` have a place, a class of the style sheet, a text within if there is room, and a title for a
    pointer that rests on them; ``marks`` are places of the axis with their texts, ``sentence`` says what it shows.
    """
    job = known.job
    if job.enqueued_at is None:
        return None
    began = job.enqueued_at
    ended = max(job.finished_at if job.ended and job.finished_at is not None else now_ms(), began)
    whole, last = max(ended - began, 1), began
    waits: list[tuple[int, int]] = []  # in which no known attempt ran
    runs: list[tuple[int, int, str, str]] = []
    for each in known.attempts:
        if each.started_at is None:
            continue
        end = ended if each.finished_at is None else each.finished_at
        kind = "live" if each.finished_at is None else "bad" if each.state in FAILED else "ok"
        text = f"{SIGNS[kind]} attempt {each.attempts}, {duration(end - each.started_at)}"
        runs.append((each.started_at, max(end, each.started_at), kind, text))
        if each.started_at > last:
            waits.append((last, each.started_at))
        last = max(last, end)
    if ended > last and not (job.ended and known.attempts):
        waits.append((last, ended))

    def span(start: int, end: int, kind: str, text: str) -> dict[str, Any]:
        width = max((end - start) / whole * WIDTH, LEAST)
        x = max(min((start - began) / whole * WIDTH, WIDTH - width), 0)
        label = text if len(text) * LETTER < width else ""
        places = {"x": round(x, 1), "text_x": round(x + 8, 1), "width": round(width, 1)}
        return {**places, "kind": kind, "label": label, "title": text}

    waited, ran = sum(end - start for start, end in waits), sum(end - start for start, end, _, _ in runs)
    failed = sum(end - start for start, end, kind, _ in runs if kind == "bad")
    return {
        "waits": [span(start, end, "wait", f"waited {duration(end - start)}") for start, end in waits],
        "runs": [span(*run) for run in runs],
        "marks": list(_marks(whole)),
        "sentence": _sentence(job, ended - began, waited, ran, failed),
        "width": WIDTH,
    }


def _marks(whole_ms: int) -> Iterator[tuple[float, str]]:
    for at in range(0, whole_ms + 1, _step(whole_ms * BETWEEN_MARKS / WIDTH)):
        yield round(at / whole_ms * WIDTH, 1), "0" if at == 0 else f"+{duration(at)}"


def _step(least_ms: float) -> int:
    unit = 1
    while STEPS_MS[-1] * unit < least_ms:
        unit = unit * 60 if unit >= 1_000 else unit * 10
    return next(step * unit for step in STEPS_MS if step * unit >= least_ms)


def _sentence(job: Job, whole: int, waited: int, ran: int, failed: int) -> str:
    began = f"Took {duration(whole)} from enqueueing to its end" if job.ended else f"Enqueued {duration(whole)} ago"
    text = f"{began}: {duration(waited)} waiting, {duration(ran)} running"
    return f"{text}, of which {duration(failed)} in attempts that failed." if failed else f"{text}."
