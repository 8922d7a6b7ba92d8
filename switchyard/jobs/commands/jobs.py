"""``manage.py switchyard jobs``: list, show, cancel, edit, run now, run again."""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from typing import Any

import dramatiq
from django.core.management.base import CommandError, CommandParser
from dramatiq.middleware import MiddlewareError

from switchyard.audit.services import Who
from switchyard.broker.errors import ActRefused, ArgumentsRefused, SwitchyardError
from switchyard.bulk import services as bulk
from switchyard.conf import declared_yard
from switchyard.console.command_errors import DATABASE_REMEDY, as_command_error
from switchyard.console.command_help import ActionParser, show_examples
from switchyard.console.printing_command import PrintingCommand
from switchyard.history.commands.history import CONDITIONS, add_conditions
from switchyard.history.filters import Filter
from switchyard.history.search_values import why_none_found
from switchyard.history.sorted_search import SORTS
from switchyard.history.writer_state import why_missing
from switchyard.jobs.calls.arguments import read_json
from switchyard.jobs.listing.pages import find_jobs
from switchyard.jobs.passport.again import run_again
from switchyard.jobs.passport.editing import due_time, edit_job, editable_job, words_of
from switchyard.jobs.passport.printing import print_job, print_page, shown_as_json
from switchyard.jobs.passport.reading import passport_of
from switchyard.jobs.passport.timeline import acts_on
from switchyard.jobs.queries import find_known, find_untracked, is_message_id
from switchyard.jobs.services import request_cancel, start_now
from switchyard.middleware.logs import printable

ANSWERS = {"cancelled": "cancelled, it never starts", "asked": "asked to stop, it is over within 10 seconds"}
RUN_NOW_ANSWERS = {
    "due": "due now, it starts as soon as a slot is free",
    "waiting": "it waits or runs already, nothing was changed",
    "held": "a rate limit holds it, or no worker knows its actor; nothing was changed",
    "ended": "it has ended already; to repeat it, use run-again",
}


EXAMPLES = """examples:
  manage.py switchyard jobs list --failures --since 1h             the last hour's failures, those that were retried too
  manage.py switchyard jobs list --state queued,running --queue default --json
  manage.py switchyard jobs list --argument customer_id=42
  manage.py switchyard jobs show 0f8fad5b-d9cb-469f-a165-70867728950e
  manage.py switchyard jobs cancel 0f8fad5b-d9cb-469f-a165-70867728950e --reason 'wrong month'
  manage.py switchyard jobs cancel --filter actor=export_invoices --filter state=queued
  manage.py switchyard jobs run-now 0f8fad5b-d9cb-469f-a165-70867728950e    before its time, or before its retry
  manage.py switchyard jobs edit 0f8fad5b-d9cb-469f-a165-70867728950e --set month='"2026-10"' --due 2h  before it starts
  manage.py switchyard jobs run-again 0f8fad5b-d9cb-469f-a165-70867728950e --set month='"2026-10"'"""

MOST_LISTED = 1_000
# As narrow terminals show an id.
BEGINNING = re.compile(r"[0-9a-f]{8}")


class Command(PrintingCommand):
    help = "List, show, edit and cancel jobs, run them now or again."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        actions = parser.add_subparsers(dest="action", required=True, parser_class=ActionParser)
        listing = actions.add_parser("list", help="jobs that match all conditions, newest first; scheduled by due time")
        states = "state, repeatable or with commas: queued, running, dead"
        add_conditions(listing, states=states, most=MOST_LISTED)
        listing.add_argument("--sort", default="", choices=SORTS, help="jobs that ended; -run: the longest run first")
        show = actions.add_parser("show", help="print what is known of a job, and what happened to it")
        cancel = actions.add_parser("cancel", help="cancel a job: at once when it waits, within 10 s when it runs")
        cancel.add_argument(
            "--filter", action="append", default=[], metavar="NAME=VALUE", dest="conditions",
            help="instead of an id: cancel all that match, as a bulk act; repeatable, names as in the list",
        )  # fmt: skip
        again = actions.add_parser("run-again", help="enqueue a job again as a new one")
        now = actions.add_parser("run-now", help="start a scheduled job, or one that waits for its retry, at once")
        edit = actions.add_parser("edit", help="change arguments or due time of a job that has not started")
        for action in (edit, again):
            action.add_argument(
                "--set", action="append", default=[], metavar="NAME=JSON", dest="changes",
                help="another value for an argument, as JSON; repeatable",
            )  # fmt: skip
        edit.add_argument("--due", default="", metavar="TIME", help="another due time: 30m, 2h or 1d from now, or ISO")
        for action in (show, now, edit, again):
            action.add_argument("id", metavar="ID")
        cancel.add_argument("id", metavar="ID", nargs="?", default="")
        for action in (cancel, now, edit, again):
            action.add_argument("--reason", default="", help="reason, for the audit log")
        for action in (listing, show, cancel, now, edit, again):
            action.add_argument("--json", action="store_true", dest="as_json", help="print JSON")

    def handle(self, *args: Any, action: str, as_json: bool = False, **options: Any) -> None:
        acts = {"list": self._list, "show": self._show, "cancel": self._cancel, "run-now": self._run_now}
        act = {**acts, "edit": self._edit}.get(action, self._run_again)
        job_id = options.get("id")
        with as_command_error(f"job {job_id}" if job_id else "jobs"):
            act(options, as_json)

    def _list(self, options: dict[str, Any], as_json: bool) -> None:
        try:
            wanted = Filter.from_query({name: options[name] for name in CONDITIONS})
            limit = min(max(options["limit"], 1), MOST_LISTED)
            page = find_jobs(wanted, after=options["after"], limit=limit, arguments=True, sort=options["sort"])
        except ValueError as error:
            raise CommandError(str(error)) from error
        if as_json:
            missing = [name for name, away in (("broker", page.broker_away), ("history", page.history_away)) if away]
            body = {"jobs": [line.as_json() for line in page.lines], "after": page.after or None, "cut": page.cut}
            body |= {"away": page.away}
            self.stdout.write(json.dumps(body | {"missing": missing}, indent=2, default=str))
        else:
            print_page(page, self.stdout)
            for note in filter(None, (why_none_found(wanted.argument, wanted.actor), why_missing())):
                self.stdout.write(f"note: {note}")
            if not page.lines and (note := _unknown_name(wanted)):
                self.stdout.write(f"note: {note}")
        if page.broker_away or page.history_away:
            # The broker's remedy goes first: where no yard runs, there is no database either.
            cause = page.broker_error or f"the database does not answer; {DATABASE_REMEDY}"
            raise CommandError(f"jobs: the list is not complete: {cause}")

    def _show(self, options: dict[str, Any], as_json: bool) -> None:
        job_id = options["id"]
        job = find_known(job_id)
        if job is None and (message := find_untracked(job_id)) is not None:
            raise CommandError(
                f"job {job_id}: {printable(message.actor_name)} on {message.queue_name} keeps no record (track=False): "
                f"its state is unknown; it has not ended, cancel it with `manage.py switchyard jobs cancel {job_id}`"
            )
        if job is None:
            raise _unknown(job_id)
        known = passport_of(job_id)
        if known is None:  # it has expired since
            raise _unknown(job_id)
        acts = acts_on(known)
        if as_json:
            self.stdout.write(json.dumps(shown_as_json(job, known, acts), indent=2, default=str))
        else:
            print_job(job, known, acts, self.stdout)

    def _cancel(self, options: dict[str, Any], as_json: bool) -> None:
        job_id, conditions, who, reason = options["id"], options["conditions"], Who.of_command(), options["reason"]
        if bool(job_id) == bool(conditions):
            raise CommandError("jobs cancel: write one job's ID, or --filter NAME=VALUE for all that match")
        if conditions:
            self._cancel_matching(conditions, who, reason, as_json)
            return
        answer = request_cancel(job_id, who=who, reason=reason) if is_message_id(job_id) else "unknown"
        if answer == "unknown":
            raise _unknown(job_id)
        if answer == "ended":
            raise CommandError(f"job {job_id}: it has ended already; there is nothing to cancel")
        self.answer(f"job {job_id}: {ANSWERS[answer]}", {"id": job_id, "answer": answer}, as_json=as_json)

    def _cancel_matching(self, conditions: list[str], who: Who, reason: str, as_json: bool) -> None:
        try:
            row = bulk.start("job.cancel", _pairs("--filter", conditions), who=who, reason=reason)
        except ValueError as error:
            raise CommandError(f"jobs cancel: {error}") from error
        text = f"no job matches so far; bulk act {row.pk} looks through all"
        if row.total:
            text = f"bulk act {row.pk} cancels about {row.total:,} jobs"
        body = {"bulk_act": row.pk, "filter": row.filter, "total": row.total}
        self.answer(f"{text}: manage.py switchyard bulk show {row.pk}", body, as_json=as_json)

    def _run_now(self, options: dict[str, Any], as_json: bool) -> None:
        job_id = options["id"]
        known = is_message_id(job_id)
        answer = start_now(job_id, who=Who.of_command(), reason=options["reason"]) if known else "unknown"
        if answer == "unknown":
            raise _unknown(job_id)
        if answer != "due":
            raise CommandError(f"job {job_id}: {RUN_NOW_ANSWERS[answer]}")
        self.answer(f"job {job_id}: {RUN_NOW_ANSWERS[answer]}", {"id": job_id, "answer": answer}, as_json=as_json)

    def _edit(self, options: dict[str, Any], as_json: bool) -> None:
        job_id, text = options["id"], None
        if not is_message_id(job_id):
            raise _unknown(job_id)
        try:
            job = editable_job(job_id)
            changes = {name: read_json(text) for name, text in _pairs("--set", options["changes"]).items()}
            if changes:
                text = json.dumps({**json.loads(job.text), **changes})
            due_at = due_time(options["due"]) if options["due"] else None
            if due_at is not None and job.due_at is None:
                raise ActRefused(f"job {job_id}", f"it is {job.state}, so it has no time to change")
            done = edit_job(job, text=text, due_at=due_at, who=Who.of_command(), reason=options["reason"])
        except ValueError as error:
            raise CommandError(f"job {job_id}: {error}") from error
        except (ArgumentsRefused, ActRefused) as error:
            raise CommandError(str(error)) from error
        self.answer(f"job {job_id}: changed {words_of(done)}", {"id": job_id, "changes": done}, as_json=as_json)

    def _run_again(self, options: dict[str, Any], as_json: bool) -> None:
        job_id = options["id"]
        job = passport_of(job_id)
        if job is None:
            raise _unknown(job_id)
        try:
            changes = {name: read_json(text) for name, text in _pairs("--set", options["changes"]).items()}
            edited = {**(job.arguments or {}), **changes} if changes else None
            sent = run_again(job, edited=edited, who=Who.of_command(), reason=options["reason"])
        except (MiddlewareError, ValueError) as error:
            raise CommandError(f"job {job_id}: {error}") from error
        except SwitchyardError as error:
            raise CommandError(str(error)) from error
        self.answer(f"job {sent}: enqueued, {job.actor} again", {"id": sent, "of": job_id}, as_json=as_json)


def _pairs(option: str, given: list[str]) -> dict[str, str]:
    """Return texts of the form ``name=value`` by name.

    Raises:
        ValueError: one has no name or no value.
    """
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in found:
            raise ValueError(f"{option} {text!r:.100}: write NAME=VALUE, each name once")
        found[name] = value
    return found


def _unknown(job_id: str) -> CommandError:
    if BEGINNING.fullmatch(job_id):
        return CommandError(
            f"job {job_id}: this is the beginning of an id; manage.py switchyard jobs list prints whole ones"
        )
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
