"""``manage.py switchyard batches``: list, show, cancel, retry."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.broker.errors import NotFound
from switchyard.broker.stores.batches import STATES, BatchRecord
from switchyard.bulk import services as bulk
from switchyard.console.commands import ActionParser, PrintingCommand, as_command_error, show_examples
from switchyard.middleware.logs import printable

EXAMPLES = """examples:
  manage.py switchyard batches list                       the newest batches
  manage.py switchyard batches show 0f3a9c2d4e5f --state failed
  manage.py switchyard batches cancel 0f3a9c2d4e5f --reason 'wrong file'"""


class Command(PrintingCommand):
    """Watch batches, cancel what has not ended in one, requeue what failed. Exits 1 if there is none of the id."""

    help = "List and show batches; cancel one, or requeue what failed in it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        verbs = parser.add_subparsers(dest="verb", required=True, parser_class=ActionParser)
        listing = verbs.add_parser("list", help="the newest batches")
        listing.add_argument("--limit", type=int, default=20, metavar="N", help="at most N (default: 20)")
        show = verbs.add_parser("show", help="one batch with some of its members")
        show.add_argument("--state", default="open", choices=STATES, help="state of the members (default: open)")
        cancel = verbs.add_parser("cancel", help="cancel what has not ended, as a bulk act")
        retry = verbs.add_parser("retry", help="requeue the dead letters of what failed, as a bulk act")
        for verb in (cancel, retry):
            verb.add_argument("--reason", default="", help="reason, for the audit log")
        for verb in (show, cancel, retry):
            verb.add_argument("batch", metavar="ID")
        for verb in verbs.choices.values():
            verb.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = {"list": self._list, "show": self._show}.get(options["verb"], self._start)
        try:
            with as_command_error("batches"):
                verb(options)
        except NotFound as error:
            raise CommandError(str(error)) from error

    def _list(self, options: dict[str, Any]) -> None:
        found = queries.newest(limit=min(max(1, options["limit"]), 1_000)).batches
        if options["json"]:
            self.stdout.write(json.dumps([queries.summary(record) for record in found], indent=2))
            return
        for record in found:
            self.stdout.write(_line(record))
        if not found:
            self.stdout.write("No batches.")

    def _show(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        members = queries.members(record.id, options["state"]).found
        if options["json"]:
            shown = [{"id": id_, "queue": queue} for id_, queue in members.items()]
            self.stdout.write(json.dumps(queries.summary(record) | {"members": shown}, indent=2))
            return
        self.stdout.write(_line(record))
        for name in record.callbacks:
            self.stdout.write(f"{name:<14} {'sent' if name in record.sent else 'not sent'}")
        for id_, queue in members.items():
            self.stdout.write(printable(f"{options['state']:<14} {id_}  {queue}"))

    def _start(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        kind, reason = f"batch.{options['verb']}", options["reason"]
        started = bulk.start(kind, {"batch": record.id}, who=Who.of_command(), reason=reason)
        text = f"bulk act {started.pk} started; see manage.py switchyard bulk show {started.pk}"
        self.answer(text, {"bulk_act": started.pk}, as_json=options["json"])


def _line(record: BatchRecord) -> str:
    ends = f"{record.done:,} done, {record.failed:,} failed, {record.cancelled:,} cancelled, {record.open:,} not ended"
    return printable(f"{record.id}  {record.name}: {queries.state_of(record)}, {ends}")
