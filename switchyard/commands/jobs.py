"""``manage.py switchyard jobs`` and ``history``: list, show, cancel, run now, run again; list those that ended."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

import dramatiq
from django.core.management.base import CommandError, CommandParser

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.audit.services import as_json as audit_json
from switchyard.broker.admin.browse import MOST
from switchyard.broker.clock import datetime_of
from switchyard.broker.stores.job_records import Job
from switchyard.bulk import services as bulk
from switchyard.conf import declared_yard
from switchyard.console.commands import ActsCommand, database_trouble, number_within, table, wrong
from switchyard.console.formatting import cut, duration
from switchyard.history.filters import TEXTS, Filter, why_none_found
from switchyard.history.queries import Cursor, job_of_row, search, why_missing
from switchyard.jobs.calls import read_json
from switchyard.jobs.listing.pages import JobsPage, find_jobs
from switchyard.jobs.passport.again import run_again
from switchyard.jobs.passport.timeline import TimelineEvent, acts_on, timeline_of
from switchyard.jobs.passport.why import Why, unfinished, why, why_json
from switchyard.jobs.presentation import (
    GOOD_OUTCOMES,
    OUTCOMES,
    Passport,
    arguments_line,
    error_line,
    job_json,
    passport_json,
    passport_of,
)
from switchyard.jobs.queries import find_untracked, holder_of_key, is_message_id
from switchyard.jobs.services import request_cancel, start_now
from switchyard.middleware.logs import printable


def job_lines(known: Passport, shown: Mapping[str, Any], acts: Sequence[AuditEntry]) -> Iterator[str]:
    """Yield a job's fields, what else is known of it, and what happened to it, the first thing first."""
    for name, value in shown.items():
        if name not in ("runs", "acts") and value not in (None, False, [], {}):
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            yield f"{name:16} {text}"
    if (found := why(known, arguments=True)) is not None:
        yield from why_lines(found)
    if known.letter is not None:
        yield f"{'triage':16} manage.py switchyard deadletters show {known.job.id}"
    yield from ("", "what happened (UTC)")
    for event in timeline_of(known, acts):
        if event.day:
            yield f"  {event.day}"
        yield f"  {event.clock}  {_words(known.job, event)}"
    if not known.attempts and not known.job.ended:
        yield "  It has not started."
    if known.history_away:
        yield "  The database cannot be read: attempts before the last one and acts of people are missing."
    for attempt in known.logs:
        yield from ("", f"log lines of attempt {attempt.attempts}")
        yield from (f"  {line}" for line in attempt.logs.splitlines())


def why_lines(found: Why) -> Iterator[str]:
    """Yield the causes in their order, the wait so far by parts, and when the job will start."""
    for number, cause in enumerate(found.causes):
        yield f"{'why' if number == 0 else 'then':16} {cause.text}"
    if found.waited_ms:
        parts = ", ".join(f"{duration(ms)} {name}" for name, ms in found.wait_parts)
        yield f"{'waited':16} {duration(found.waited_ms)}: {parts}"
    if found.when:
        yield f"{'starts':16} {found.when}"


def _words(job: Job, event: TimelineEvent) -> str:
    words = f"{event.what}{event.note}"
    if event.origin:
        for name, preposition in (("user", "by"), ("request", "in request"), ("schedule", "by the schedule")):
            words += f", {preposition} {job.origin[name]}" if job.origin.get(name) else ""
    if (each := event.attempt) is not None and event.starts:
        words += f" on {each.holder.name}" if each.worker else ""
        words += f", release {each.release}" if each.release else ""
    elif each is not None and each.error:
        words += f": {each.error['type']}: {each.error['message']}"
    return f"{words} ({event.more})" if event.more else words


LONGEST_DETAIL = 60
HEADINGS = ("state", "actor", "queue", "waited", "ran", "owner", "job", "detail")


def page_lines(page: JobsPage) -> list[str]:
    """Return a page as a table, then which queues hold more and where the next page begins."""
    titles = ("due (UTC)" if page.by_due_time else "time (UTC)", *HEADINGS)
    none = "none of the jobs looked through matches" if page.after else "no job matches"
    lines = [table(titles, (_cells(job, by_due_time=page.by_due_time) for job in page.jobs)) or none]
    away = "its node does not answer, or has only a part of its keys; what has not ended there is missing"
    lines += [f"{queue}: {away}" for queue in page.away]
    lines += [f"{queue}: of what waits and is scheduled, {MOST:,} messages were looked through" for queue in page.cut]
    return [*lines, f"more: --after {page.after}"] if page.after else lines


def _cells(job: Job, *, by_due_time: bool) -> tuple[str, ...]:
    detail = error_line(job) or (job.reason or "").replace("_", " ") or arguments_line(job)
    return (
        f"{datetime_of((by_due_time and job.next_attempt_at) or job.at):%Y-%m-%d %H:%M:%S}",
        job.state,
        job.actor,
        job.queue,
        *("–" if ms is None else duration(ms) for ms in (job.wait_ms, job.run_ms)),
        job.owner or "–",
        job.id,
        cut(detail, LONGEST_DETAIL),
    )


HELP: Final = {
    "actor": "name of an actor",
    "queue": "name of a queue",
    "owner": "owner of the job",
    "parent": "id of the job that sent it",
    "tag": "one of the job's tags",
    "error": "class of the last failure's exception, or a part of its text",
    "fingerprint": "fingerprint of the last failure",
    "release": "release of the worker that ran it last",
    "waited": "milliseconds that it waited for its last start, as 80-320, 80- or -320",
    "ran": "milliseconds that its last attempt ran, as --waited",
}

MOST_LISTED: Final = 1_000
# Names of the options that ``add_conditions`` adds.
CONDITIONS: Final = ("state", *TEXTS, "argument", "since", "until", "failures")


def add_conditions(listing: CommandParser, *, states: str) -> None:
    """Add the options of a list of jobs: its conditions (``states`` is a help), and place and length of a page."""
    listing.add_argument("--state", action="append", help=states)
    for name in TEXTS:
        listing.add_argument(f"--{name}", help=HELP[name])
    listing.add_argument("--argument", metavar="NAME=VALUE", help="exact value of a searchable argument")
    listing.add_argument("--since", help="30m, 1h or 7d ago, or an ISO time (UTC)")
    listing.add_argument("--until", help="as --since; the time itself is left out")
    listing.add_argument("--failures", action="store_true", help="with a failed attempt, also those retried")
    listing.add_argument("--after", default="", help="where the page before ended")
    text = f"jobs of a page, 50, at most {MOST_LISTED}"
    listing.add_argument("--limit", type=number_within(1, MOST_LISTED), default=50, help=text)


EXAMPLES = """examples:
  manage.py switchyard jobs list --failures --since 1h             the last hour's failures, those that were retried too
  manage.py switchyard jobs list --state queued,running --queue default --json
  manage.py switchyard jobs list --argument customer_id=42
  manage.py switchyard jobs show 0f8fad5b-d9cb-469f-a165-70867728950e
  manage.py switchyard jobs why 0f8fad5b-d9cb-469f-a165-70867728950e     why it has not run, and when it will
  manage.py switchyard jobs cancel 0f8fad5b-d9cb-469f-a165-70867728950e --reason 'wrong month'
  manage.py switchyard jobs cancel --filter actor=export_invoices --filter state=queued
  manage.py switchyard jobs run-now 0f8fad5b-d9cb-469f-a165-70867728950e    before its time, or before its retry
  manage.py switchyard jobs run-again 0f8fad5b-d9cb-469f-a165-70867728950e --set month='"2026-10"'"""

# As the room shows an id.
BEGINNING = re.compile(r"[0-9a-f]{8}")


class Command(ActsCommand):
    help = "List, show and cancel jobs, say why they wait, run them now or again."
    examples = EXAMPLES

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="jobs that match all conditions, newest first; scheduled by due time")
        add_conditions(listing, states="state, repeatable or with commas: queued, running, dead")
        show = add("show", help="print what is known of a job, and what happened to it")
        reasons = add("why", help="print why a job has not run, its wait so far, and when it will start")
        cancel = add("cancel", help="cancel a job: at once when it waits, within 10 s when it runs")
        text = "instead of an id: cancel all that match, as a bulk act; repeatable, names as in the list"
        cancel.add_argument("--filter", action="append", default=[], metavar="NAME=VALUE", dest="conditions", help=text)
        again = add("run-again", help="enqueue a job again as a new one")
        now = add("run-now", help="start a scheduled job, or one that waits for its retry, at once")
        text = "another value for an argument, as JSON; repeatable"
        again.add_argument("--set", action="append", default=[], metavar="NAME=JSON", dest="changes", help=text)
        for action in (show, reasons, now, again):
            action.add_argument("id", metavar="ID")
        cancel.add_argument("id", metavar="ID", nargs="?", default="")
        for action in (cancel, now, again):
            action.add_argument("--reason", default="", help="reason, for the audit log")

    def handle(self, *args: Any, **options: Any) -> None:
        self.subject = f"job {options['id']}" if options.get("id") else "jobs"
        super().handle(*args, **options)

    def _list(self, options: dict[str, Any]) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            page = find_jobs(wanted, after=options["after"], limit=options["limit"])
        except ValueError as error:
            raise wrong(str(error)) from error
        missing = [name for name, away in (("broker", page.broker_error), ("history", page.history_error)) if away]
        jobs = [job_json(job, arguments=True) for job in page.jobs]
        body = {"jobs": jobs, "after": page.after or None, "cut": page.cut, "away": page.away, "missing": missing}
        lines: list[str] = []
        if not self.as_json:
            unknown = "" if page.jobs else _unknown_name(wanted)
            notes = filter(None, (why_none_found(wanted.argument, wanted.actor), why_missing(), unknown))
            lines = [*page_lines(page), *(f"note: {note}" for note in notes)]
        self.answer(lines, body, indent=2)
        fault = page.history_error
        # The broker's remedy goes first: where no yard runs, there is no database either.
        if cause := page.broker_error or (fault and (database_trouble(fault) or str(fault))):
            raise CommandError(f"jobs: the list is not complete: {cause}")

    def _show(self, options: dict[str, Any]) -> None:
        job_id = options["id"]
        known = passport_of(job_id)
        if known is None and (job := find_untracked(job_id)) is not None:
            raise CommandError(
                f"job {job_id}: {printable(job.actor)} on {job.queue} keeps no record (track=False): "
                f"its state is unknown; it has not ended, cancel it with `manage.py switchyard jobs cancel {job_id}`"
            )
        if known is None and (held := holder_of_key(job_id)):
            raise CommandError(f"job {job_id}: nothing was enqueued: job {held} held its unique key and stands for it")
        if known is None:
            raise _unknown(job_id)
        acts = acts_on(known.job)
        shown = passport_json(known, arguments=True) | {"acts": [audit_json(entry) for entry in acts]}
        # Names in a message may contain terminal escape codes.
        self.answer(map(printable, job_lines(known, shown, acts)), shown, indent=2)

    def _why(self, options: dict[str, Any]) -> None:
        job_id = options["id"]
        if (known := unfinished(job_id)) is None:
            raise _unknown(job_id)
        if (found := why(known, arguments=True)) is None:
            fact = f"job {job_id}: it has ended, {known.job.state}"
            raise CommandError(f"{fact}; manage.py switchyard jobs show {job_id}")
        self.answer(map(printable, why_lines(found)), why_json(found), indent=2)

    def _cancel(self, options: dict[str, Any]) -> None:
        conditions = options["conditions"]
        if bool(options["id"]) == bool(conditions):
            raise wrong("jobs cancel: write one job's ID, or --filter NAME=VALUE for all that match")
        if not conditions:
            self._do_to_one(options, request_cancel)
            return
        try:
            wanted = _pairs("--filter", conditions)
            row = bulk.start("job.cancel", wanted, who=Who.of_command(), reason=options["reason"])
        except ValueError as error:
            raise wrong(f"jobs cancel: {error}") from error
        text = f"no job matches so far; bulk act {row.pk} looks through all"
        if row.total:
            text = f"bulk act {row.pk} cancels about {row.total:,} jobs"
        body = {"bulk_act": row.pk, "filter": row.filter, "total": row.total}
        self.answer(f"{text}: manage.py switchyard bulk show {row.pk}", body)

    def _run_now(self, options: dict[str, Any]) -> None:
        self._do_to_one(options, start_now)

    def _do_to_one(self, options: dict[str, Any], act: Callable[..., str]) -> None:
        """Do an act to the job of the options, and print what became of it."""
        job_id = options["id"]
        answer = act(job_id, who=Who.of_command(), reason=options["reason"]) if is_message_id(job_id) else "unknown"
        if answer == "unknown":
            raise _unknown(job_id)
        text = f"job {job_id}: {OUTCOMES[answer]}"
        if answer not in GOOD_OUTCOMES:
            raise CommandError(text)
        self.answer(text, {"id": job_id, "answer": answer})

    def _run_again(self, options: dict[str, Any]) -> None:
        job_id = options["id"]
        known = passport_of(job_id)
        if known is None:
            raise _unknown(job_id)
        try:
            changes = {name: read_json(text) for name, text in _pairs("--set", options["changes"]).items()}
            edited = {**(known.arguments or {}), **changes} if changes else None
            sent = run_again(known, edited=edited, who=Who.of_command(), reason=options["reason"])
        except ValueError as error:
            raise wrong(f"job {job_id}: {error}") from error
        self.answer(f"job {sent}: enqueued, {known.job.actor} again", {"id": sent, "of": job_id})


class History(ActsCommand):
    """List jobs of the history."""

    help = "List jobs that ended, by any condition."
    examples = """examples:
  manage.py switchyard history list --failures --since 1h          the last hour's failures, those that were retried too
  manage.py switchyard history list --state dead --queue default --json
  manage.py switchyard history list --argument customer_id=42       an argument that its actor lists in search=(...)
  manage.py switchyard history list --after 1763728200000-42        the next page, as the last line of a page says"""
    subject = "history"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="jobs that match all conditions, newest end first")
        add_conditions(listing, states="state, repeatable: succeeded, dead, cancelled, expired")

    def _list(self, options: dict[str, Any]) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            after = Cursor.parse(options["after"]) if options["after"] else None
        except ValueError as error:
            raise wrong(str(error)) from error
        page = search(wanted, after=after, limit=options["limit"])
        jobs, following = tuple(map(job_of_row, page.rows)), str(page.after or "")
        note = why_none_found(wanted.argument, wanted.actor)
        lines = [*page_lines(JobsPage(jobs, following)), *([f"note: {note}"] if note else [])]
        value = {"jobs": [job_json(job, arguments=True) for job in jobs], "after": following or None}
        self.answer(lines, value, indent=2)


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """Return texts of the form ``name=value`` by name; ``ValueError`` where one lacks either."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found:
            raise ValueError(f"{option} {text!r:.100}: write NAME=VALUE, each name once")
        found[name] = value
    return found


def _unknown(job_id: str) -> CommandError:
    if BEGINNING.fullmatch(job_id):
        fact = f"job {job_id}: this is the beginning of an id"
        return CommandError(f"{fact}; manage.py switchyard jobs list prints whole ones")
    return CommandError(
        f"job {job_id}: no job has this id, or it has expired: finished jobs are kept for 30 days, those sent with "
        "track=False not at all; manage.py switchyard jobs list prints those that there are"
    )


def _unknown_name(wanted: Filter) -> str:
    """Return which name of a filter this code does not have; "" when it has all. Jobs may be another release's."""
    queues = [queue.name for queue in declared_yard().queues]
    for what, name, known in (("queue", wanted.queue, queues), ("actor", wanted.actor, dramatiq.get_broker().actors)):
        if name and name not in known:
            near = get_close_matches(name, known, n=1)
            return f"this code has no {what} {printable(name)}" + (f"; did you mean {near[0]}?" if near else "")
    return ""
