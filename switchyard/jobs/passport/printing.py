"""A job's passport as terminal output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

import dramatiq
from django.core.management.base import OutputWrapper
from rich.console import Console
from rich.table import Table
from rich.text import Text

from switchyard.audit.models import AuditEntry
from switchyard.audit.presentation import as_json as audit_json
from switchyard.broker.admin.look_through import MOST
from switchyard.broker.stores.job_records import JobRecord
from switchyard.console.formatting import duration
from switchyard.jobs.listing.lines import JobLine, JobsPage
from switchyard.jobs.passport.reading import Passport, as_json
from switchyard.jobs.passport.timeline import TimelineEvent, timeline_of
from switchyard.jobs.presentation import job_body
from switchyard.middleware.arguments import misfit, signature_of
from switchyard.middleware.logs import printable
from switchyard.middleware.places import place_of


def print_job(job: JobRecord, known: Passport, acts: Sequence[AuditEntry], out: OutputWrapper) -> None:
    """Print a job's state, what else is known of it, and what happened to it, the first thing first."""
    for name, value in _state(job):
        out.write(f"{name:16} {value}")
    if job.reason == "parked":
        out.write(f"{'why':16} {_why_parked(job)}")
    for name, value in _facts(known):
        # Names in a message may contain terminal escape codes.
        out.write(f"{name:16} {printable(value)}")
    _print_timeline(known, acts, out)


def shown_as_json(job: JobRecord, known: Passport, acts: Sequence[AuditEntry]) -> dict[str, Any]:
    """Return the same as JSON: as the API answers, each attempt as ``runs``, what people did as ``acts``."""
    passport = as_json(known, arguments=True)
    runs = passport.pop("attempts")
    body = job_body(job, result_url=None) | {"owner": job.owner, "result": job.result}
    more = {name: value for name, value in passport.items() if name not in body}
    return body | more | {"runs": runs, "acts": [audit_json(entry) for entry in acts]}


def _state(job: JobRecord) -> Iterator[tuple[str, str]]:
    for name, value in job_body(job, result_url=None).items():
        if value is not None and name != "result_url":
            yield name, printable(value) if isinstance(value, str) else json.dumps(value)


def _print_timeline(job: Passport, acts: Sequence[AuditEntry], out: OutputWrapper) -> None:
    out.write("\nwhat happened (UTC)")
    for event in timeline_of(job, acts):
        if event.day:
            out.write(f"  {event.day}")
        out.write(f"  {event.clock}  {printable(_words(job, event))}")
    if not job.attempts and not job.ended:
        out.write("  It has not started.")
    if job.history_away:
        out.write("  The database does not answer: attempts before the last one and acts of people are missing.")
    for attempt in job.logs:
        out.write(f"\nlog lines of attempt {attempt.number}")
        for line in attempt.logs.splitlines():
            out.write(f"  {printable(line)}")


def _facts(job: Passport) -> Iterator[tuple[str, str]]:
    arguments = json.dumps(dict(job.arguments or {}), ensure_ascii=False, default=str)
    facts = {
        "owner": job.owner,
        "arguments": "too long to be kept" if job.arguments is None else job.arguments and arguments,
        "tags": ", ".join(job.tags),
        "parent": job.parent,
        "worker": job.worker,
        "release": job.release,
        "time limit": duration(job.limit_ms) if job.limit_ms else "",
        "dead letter": job.letter and f"{job.letter.state}: manage.py switchyard deadletters show {job.id}",
    }
    yield from ((name, str(value)) for name, value in facts.items() if value)


def _words(job: Passport, event: TimelineEvent) -> str:
    words = f"{event.what}{event.note}"
    if event.origin:
        for name, preposition in (("user", "by"), ("request", "in request"), ("schedule", "by the schedule")):
            words += f", {preposition} {job.origin[name]}" if job.origin.get(name) else ""
    if (each := event.attempt) is not None and event.starts:
        words += f" on {each.worker}" if each.worker else ""
        words += f", release {each.release}" if each.release else ""
    elif each is not None and each.error_type:
        words += f": {each.error_type}: {each.error_message}"
    return f"{words} ({event.more})" if event.more else words


def _why_parked(job: JobRecord) -> str:
    actor = dramatiq.get_broker().actors.get(job.actor)
    if actor is None:
        return (
            f"no running worker has an actor {job.actor!r}, and neither has this code: declare it in actors.py of an "
            "installed app (manage.py check sees a file that is not found), or write "
            f"@dramatiq.actor(actor_name={job.actor!r}) if it was renamed, then restart the pools"
        )
    # A record whose arguments were too long has none.
    wrong = misfit(actor.fn, len(job.args), job.kwargs.keys()) if job.args or job.kwargs else None
    if wrong is not None:
        if "too many positional" in wrong:
            wrong += "; a step of a pipeline gets the result of the step before it, unless it has pipe_ignore=True"
        return (
            f"its arguments do not fit this code: {wrong}. It is declared as "
            f"{job.actor}{signature_of(actor.fn)} at {place_of(actor.fn)}: change the actor and restart the pools, "
            "or cancel the job. After 10 minutes it becomes a dead letter"
        )
    return (
        f"no running worker has the actor {job.actor!r} as this code does ({place_of(actor.fn)}): restart the "
        "pools, which load code when they start; the job then runs by itself. After 10 minutes it becomes a dead letter"
    )


LONGEST_DETAIL = 60
HEADINGS = ("state", "actor", "queue", "waited", "ran", "owner", "job", "detail")


def print_page(page: JobsPage, out: OutputWrapper) -> None:
    """Print a page as a table, then where the next one begins and which queues hold more."""
    console = Console(file=cast(TextIO, out), width=None if out.isatty() else 240, highlight=False, soft_wrap=True)
    if not page.lines:
        console.print("none of the jobs looked through matches" if page.after else "no job matches")
    else:
        table = Table("due (UTC)" if page.by_due_time else "time (UTC)", *HEADINGS, box=None)
        for line in page.lines:
            # Names in a message may contain terminal escape codes and markup.
            table.add_row(*(Text(printable(cell)) for cell in _cells(line, by_due_time=page.by_due_time)))
        console.print(table)
    for queue in page.away:
        why = "its node does not answer, or has only a part of its keys"
        console.print(Text(f"{queue}: {why}; what has not ended there is missing"))
    for queue in page.cut:
        console.print(Text(f"{queue}: of what waits and is scheduled, {MOST:,} messages were looked through"))
    if page.after:
        console.print(Text(f"more: --after {page.after}"))


def _cells(line: JobLine, *, by_due_time: bool) -> tuple[str, ...]:
    detail = line.error or line.reason.replace("_", " ") or line.excerpt
    return (
        f"{(line.due if by_due_time and line.due else line.shown_at):%Y-%m-%d %H:%M:%S}",
        line.state,
        line.actor,
        line.queue,
        "–" if line.wait_ms is None else duration(line.wait_ms),
        "–" if line.ran_ms is None else duration(line.ran_ms),
        line.owner or "–",
        line.id,
        detail if len(detail) <= LONGEST_DETAIL else f"{detail[: LONGEST_DETAIL - 1]}…",
    )
