"""``manage.py switchyard batches``: list, show, cancel, retry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandParser

from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.broker.stores.batches import STATES, BatchRecord
from switchyard.bulk import services as bulk
from switchyard.console.commands import ActsCommand, number_within
from switchyard.middleware.logs import printable

MOST = 1_000
EXAMPLES = """examples:
  manage.py switchyard batches list                       the newest batches
  manage.py switchyard batches show 0f3a9c2d4e5f --state failed
  manage.py switchyard batches cancel 0f3a9c2d4e5f --reason 'wrong file'"""


class Command(ActsCommand):
    """Watch batches, cancel what has not ended in one, requeue what failed. Exits 1 if there is none of the id."""

    help = "List and show batches; cancel one, or requeue what failed in it."
    examples, subject = EXAMPLES, "batches"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="the newest batches")
        limit = number_within(1, MOST)
        listing.add_argument("--limit", type=limit, default=20, metavar="N", help="at most N (default: 20)")
        show = add("show", help="one batch with some of its members")
        show.add_argument("--state", default="open", choices=STATES, help="state of the members (default: open)")
        cancel = add("cancel", help="cancel what has not ended, as a bulk act")
        retry = add("retry", help="requeue the dead letters of what failed, as a bulk act")
        for verb in (cancel, retry):
            verb.add_argument("--reason", default="", help="reason, for the audit log")
        for verb in (show, cancel, retry):
            verb.add_argument("batch", metavar="ID")

    def _list(self, options: dict[str, Any]) -> None:
        found, _ = queries.newest(limit=options["limit"])
        self.answer(map(_line, found) if found else "No batches.", list(map(queries.summary, found)), indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        members = queries.members(record.id, options["state"]).found
        lines = [_line(record)]
        lines += [f"{name:<14} {'sent' if name in record.sent else 'not sent'}" for name in record.callbacks]
        lines += [printable(f"{options['state']:<14} {id_}  {queue}") for id_, queue in members.items()]
        shown = [{"id": id_, "queue": queue} for id_, queue in members.items()]
        self.answer(lines, queries.summary(record) | {"members": shown}, indent=2)

    def _start(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        kind, reason = f"batch.{options['verb']}", options["reason"]
        started = bulk.start(kind, {"batch": record.id}, who=Who.of_command(), reason=reason)
        text = f"bulk act {started.pk} started; see manage.py switchyard bulk show {started.pk}"
        self.answer(text, {"bulk_act": started.pk})

    _cancel = _retry = _start


def _line(record: BatchRecord) -> str:
    ends = f"{record.done:,} done, {record.failed:,} failed, {record.cancelled:,} cancelled, {record.open:,} not ended"
    return printable(f"{record.id}  {record.name}: {queries.state_of(record)}, {ends}")
