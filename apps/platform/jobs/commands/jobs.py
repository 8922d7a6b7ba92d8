"""``manage.py jobs``: show one job's state and history."""

from __future__ import annotations

import json
from typing import Any

import dramatiq
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.jobs.presentation import job_body
from apps.platform.jobs.queries import find_job, find_untracked, is_job_id
from apps.platform.jobs.services import request_cancel
from broker.stores.job_records import JobRecord
from middleware.places import place_of

ANSWERS = {"cancelled": "cancelled, it never starts", "asked": "asked to stop, it is over within 10 seconds"}


EXAMPLES = """examples:
  manage.py jobs show 0f8fad5b-d9cb-469f-a165-70867728950e
  manage.py jobs show 0f8fad5b-d9cb-469f-a165-70867728950e --json
  manage.py jobs cancel 0f8fad5b-d9cb-469f-a165-70867728950e"""


class Command(BaseCommand):
    help = "Show or cancel a job."

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        actions = parser.add_subparsers(dest="action", required=True)
        show = actions.add_parser("show", help="print the state of a job")
        show.add_argument("id", metavar="ID")
        show.add_argument("--json", action="store_true", dest="as_json", help="print it as JSON")
        cancel = actions.add_parser("cancel", help="cancel a job: at once when it waits, within 10 s when it runs")
        cancel.add_argument("id", metavar="ID")
        cancel.add_argument("--json", action="store_true", dest="as_json", help="print the answer as JSON")

    def handle(self, *args: Any, action: str, id: str, as_json: bool = False, **options: Any) -> None:
        with as_command_error(f"job {id}"):
            self._show(id, as_json) if action == "show" else self._cancel(id, as_json)

    def _show(self, job_id: str, as_json: bool) -> None:
        job = find_job(job_id)
        if job is None and (message := find_untracked(job_id)) is not None:
            raise CommandError(
                f"job {job_id}: {message.actor_name} on {message.queue_name} keeps no record (track=False): its "
                f"state is unknown; it has not ended, cancel it with `manage.py jobs cancel {job_id}`"
            )
        if job is None:
            raise _unknown(job_id)
        body = job_body(job, result_url=None)
        if as_json:
            self.stdout.write(json.dumps(body | {"owner": job.owner, "result": job.result}, indent=2))
            return
        shown = {name: value for name, value in body.items() if value is not None and name != "result_url"}
        for name, value in shown.items():
            self.stdout.write(f"{name:16} {value if isinstance(value, str | int) else json.dumps(value)}")
        if job.reason == "parked":
            self.stdout.write(f"{'why':16} {_why_parked(job)}")

    def _cancel(self, job_id: str, as_json: bool) -> None:
        answer = request_cancel(job_id) if is_job_id(job_id) else "unknown"
        if answer == "unknown":
            raise _unknown(job_id)
        if answer == "ended":
            raise CommandError(f"job {job_id}: it has ended already; there is nothing to cancel")
        if as_json:
            self.stdout.write(json.dumps({"id": job_id, "answer": answer}))
        else:
            self.stdout.write(f"job {job_id}: {ANSWERS[answer]}")


def _why_parked(job: JobRecord) -> str:
    actor = dramatiq.get_broker().actors.get(job.actor)
    if actor is None:
        return (
            f"no running worker has an actor {job.actor!r}, and neither has this code: declare it in actors.py of an "
            "installed app (manage.py check sees a file that is not found), then restart the pools"
        )
    return (
        f"no running worker has the actor {job.actor!r} as this code does ({place_of(actor.fn)}): restart the "
        "pools, which load code when they start; the job then runs by itself. After 10 minutes it becomes a dead letter"
    )


def _unknown(job_id: str) -> CommandError:
    return CommandError(
        f"job {job_id}: no job has this id, or it has expired; finished jobs are kept for 25 hours, those sent with "
        "track=False not at all"
    )
