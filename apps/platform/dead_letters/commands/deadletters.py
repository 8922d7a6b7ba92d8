"""``manage.py deadletters``: list, show, requeue, discard."""

from __future__ import annotations

import getpass
import json
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from apps.platform.conf import declared_yard
from apps.platform.console.command_errors import WRONG_ARGUMENTS, as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.dead_letters import actions, bulk, presentation, quarantine, queries
from apps.platform.dead_letters.errors import UnknownDeadLetter, UnknownGroup
from apps.platform.dead_letters.models import DeadLetter
from apps.platform.dead_letters.reconcile import reconcile_all
from broker.errors import BrokerError

EXAMPLES = """examples:
  manage.py deadletters list --limit 20
  manage.py deadletters show 0f8fad5b-d9cb-469f-a165-70867728950e      its traceback and history
  manage.py deadletters requeue --group 1f2e3d4c5b6a                   all of one cause, once it is fixed
  manage.py deadletters discard 0f8fad5b-d9cb-469f-a165-70867728950e --reason 'the customer is gone'"""


class Command(BaseCommand):
    """Triage dead letters. Exits 1 if an id or group is unknown or a letter was not moved; stderr names each."""

    help = "List, show, requeue and discard dead letters."

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        verbs = parser.add_subparsers(dest="verb", required=True)
        listing = verbs.add_parser("list", help="open dead letters, newest first")
        listing.add_argument("--queue", choices=[queue.name for queue in declared_yard().queues], default="")
        listing.add_argument("--group", metavar="FP", default="", help="only this fingerprint")
        listing.add_argument(
            "--state",
            choices=DeadLetter.State.values,
            default="",
            help="letters in this state instead of the open ones",
        )
        listing.add_argument("--limit", type=int, default=100, metavar="N", help="at most N letters (default: 100)")
        listing.add_argument("--quarantined", action="store_true", help="messages that could not be decoded")
        show = verbs.add_parser("show", help="one dead letter with its traceback")
        show.add_argument("id", metavar="ID")
        for verb, text in (("requeue", "send back to their queues"), ("discard", "delete from the broker")):
            move = verbs.add_parser(verb, help=f"{text}, by id or by group")
            move.add_argument("ids", nargs="*", metavar="ID")
            move.add_argument("--group", metavar="FP", default="", help="all open letters of this fingerprint")
            move.add_argument("--reason", default="", help="reason to note in the history")
            move.add_argument("--quarantined", action="store_true", help="the ids are of quarantined messages")
        for sub in verbs.choices.values():
            sub.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = {"list": self._list, "show": self._show, "requeue": self._move, "discard": self._move}[options["verb"]]
        try:
            with as_command_error("dead letters"):
                verb(options)
        except (UnknownDeadLetter, UnknownGroup) as error:
            raise CommandError(str(error)) from error

    def _list(self, options: dict[str, Any]) -> None:
        if options["limit"] < 1:
            message = f"--limit: {options['limit']} is below 1; ask for at least one letter"
            raise CommandError(message, returncode=WRONG_ARGUMENTS)
        if options["quarantined"]:
            self._quarantined(options)
            return
        self._catch_up()
        states = (options["state"],) if options["state"] else ()
        rows = queries.listing(queue=options["queue"], fingerprint=options["group"], states=states)[: options["limit"]]
        if options["json"]:
            self._print_json([presentation.summary(row) for row in rows])
            return
        presentation.print_letters(list(rows), self.stdout)

    def _quarantined(self, options: dict[str, Any]) -> None:
        items = queries.unreadable(queue=options["queue"], limit=options["limit"])
        if options["json"]:
            self._print_json([presentation.unreadable_summary(item) for item in items])
            return
        presentation.print_unreadable(items, self.stdout)

    def _show(self, options: dict[str, Any]) -> None:
        row = queries.find(options["id"])
        if options["json"]:
            self._print_json(presentation.detail(row))
            return
        presentation.print_letter(row, self.stdout)

    def _move(self, options: dict[str, Any]) -> None:
        by, reason, ids, group = f"{getpass.getuser()} (shell)", options["reason"], options["ids"], options["group"]
        if bool(ids) == bool(group) or (options["quarantined"] and group):
            message = f"{options['verb']}: name ids, or one group with --group FP; quarantined messages have no group"
            raise CommandError(message, returncode=WRONG_ARGUMENTS)
        outcome: bulk.BulkResult
        if options["quarantined"]:
            outcome = quarantine.move_each(options["verb"], list(dict.fromkeys(ids)))
        elif group:
            whole = {"requeue": bulk.requeue_group, "discard": bulk.discard_group}
            outcome = whole[options["verb"]](group, by=by, reason=reason)
        else:
            one: dict[str, bulk.Action] = {"requeue": actions.requeue, "discard": actions.discard}
            outcome = bulk.apply_to_each(one[options["verb"]], list(dict.fromkeys(ids)), by=by, reason=reason)
        if options["json"]:
            self._print_json(asdict(outcome))
        else:
            past = {"requeue": "Requeued", "discard": "Discarded"}[options["verb"]]
            left = f", {outcome.left} of the group are left: run it again" if outcome.left else ""
            moved = presentation.letters(len(outcome.done), quarantined=options["quarantined"])
            self.stdout.write(f"{past} {moved}{left}.")
        for sentence in (*outcome.skipped, *filter(None, [outcome.stopped])):
            self.stderr.write(sentence)
        if outcome.skipped or outcome.stopped:
            raise SystemExit(1)

    def _catch_up(self) -> None:
        try:
            reconcile_all()
        except BrokerError as error:
            self.stderr.write(f"The list may be out of date: {error}")

    def _print_json(self, value: object) -> None:
        self.stdout.write(json.dumps(value, indent=2))
