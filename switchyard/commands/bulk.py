"""``manage.py switchyard bulk``: list, show, stop; and ``batches``: list, show, cancel, retry."""

from collections.abc import Callable
from functools import partial
from typing import Any

from django.core.management.base import CommandError, CommandParser

from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.broker.stores.batches import STATES, BatchRecord
from switchyard.bulk import services
from switchyard.console.commands import LIMIT, ActsCommand, listed_number, number_within
from switchyard.console.formatting import duration
from switchyard.middleware.logs import printable


class Command(ActsCommand):
    """Watch and stop bulk acts, and take rollouts back. Exits 1 if there is none with the number, or it had ended."""

    help = "List, show and stop bulk acts, and take rollouts back."
    examples = """examples:
  manage.py switchyard bulk list                          the newest bulk acts
  manage.py switchyard bulk show 12                       progress, rate, what was skipped and why
  manage.py switchyard bulk stop 12 --reason 'wrong group'
  manage.py switchyard bulk take-back 12                  of a rollout: what has not started is dead again"""
    subject = "bulk acts"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="the newest bulk acts")
        listing.add_argument("--limit", type=LIMIT, default=20, metavar="N", help="at most N (default: 20)")
        show = add("show", help="one bulk act with its progress")
        stop = add("stop", help="stop one after the step that it is in; what is done stays done")
        stop.add_argument("--reason", default="", help="reason, for the audit log")
        back = add("take-back", help="of a rollout that has ended: what has not started is dead again")
        back.add_argument("--reason", default="", help="reason, for the audit log")
        for verb in (show, stop, back):
            verb.add_argument("number", type=partial(listed_number, "bulk list"), metavar="NUMBER")

    def _list(self, options: dict[str, Any]) -> None:
        found = services.newest(limit=options["limit"])
        lines = [f"{one.act.pk:>6}  {_line(one)}" for one in found] or ["No bulk acts."]
        self.answer(lines, list(map(services.summary, found)), indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        found = services.find(options["number"])
        act = found.act
        facts = {
            "filter": ", ".join(f"{name}={value}" for name, value in act.filter.items()) or "none: everything",
            "by": f"{act.who}, {act.created_at:%Y-%m-%d %H:%M:%S} UTC",
            "reason": act.reason,
            "error": act.error,
            **{f"skipped {count:,}": reason for reason, count in act.skips.items()},
        }
        lines = [printable(f"{name:<14} {value}") for name, value in facts.items() if value]
        self.answer([f"bulk act {act.pk}: {_line(found)}", *lines], services.summary(found), indent=2)

    def _take_back(self, options: dict[str, Any]) -> None:
        number = options["number"]
        row = services.take_back(number, who=Who.of_command(), reason=options["reason"])
        text = f"bulk act {row.pk} takes back what has not started: manage.py switchyard bulk show {row.pk}"
        self.answer(text, {"bulk_act": row.pk, "of": number})

    def _stop(self, options: dict[str, Any]) -> None:
        number = options["number"]
        stopped = services.stop(number, who=Who.of_command(), reason=options["reason"])
        text = f"bulk act {number}: stops after the step that it is in; what is done stays done" if stopped else ""
        self.answer(text, {"number": number, "stopping": stopped})
        if not stopped:
            raise CommandError(f"bulk act {number}: it has ended, or is stopping already; nothing to stop")


def _line(one: services.Progress) -> str:
    act = one.act
    took = "" if one.took_s is None else f", in {duration(one.took_s * 1_000)}"
    rate = took if one.rate is None else f", {one.rate:,.{0 if one.rate >= 9.95 else 1}f}/s"
    left = "" if one.left_s is None else f", {one.left_s:,.0f} s left"
    skipped = f", {act.skipped:,} skipped" if act.skipped else ""
    state = "stopping" if act.unfinished and act.stop_asked_at else act.state
    return f"{one.title}: {state}, {act.done:,} of {act.total:,} done{skipped}{rate}{left}"


class BatchesCommand(ActsCommand):
    """Watch batches, cancel what has not ended in one, requeue what failed. Exits 1 if there is none of the id."""

    help = "List and show batches; cancel one, or requeue what failed in it."
    examples = """examples:
  manage.py switchyard batches list                       the newest batches
  manage.py switchyard batches show 0f3a9c2d4e5f --state failed
  manage.py switchyard batches cancel 0f3a9c2d4e5f --reason 'wrong file'"""
    subject = "batches"

    def add_acts(self, add: Callable[..., CommandParser]) -> None:
        listing = add("list", help="the newest batches")
        limit = number_within(1, 1_000)
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
        self.answer(map(_batch_line, found) if found else "No batches.", list(map(queries.summary, found)), indent=2)

    def _show(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        members = queries.members(record.id, options["state"]).found
        lines = [_batch_line(record)]
        lines += [f"{name:<14} {'sent' if name in record.sent else 'not sent'}" for name in record.callbacks]
        lines += [printable(f"{options['state']:<14} {id_}  {queue}") for id_, queue in members.items()]
        shown = [{"id": id_, "queue": queue} for id_, queue in members.items()]
        self.answer(lines, queries.summary(record) | {"members": shown}, indent=2)

    def _start(self, options: dict[str, Any]) -> None:
        record = queries.find(options["batch"])
        kind, reason = f"batch.{options['verb']}", options["reason"]
        started = services.start(kind, {"batch": record.id}, who=Who.of_command(), reason=reason)
        text = f"bulk act {started.pk} started; see manage.py switchyard bulk show {started.pk}"
        self.answer(text, {"bulk_act": started.pk})

    _cancel = _retry = _start


def _batch_line(record: BatchRecord) -> str:
    ends = f"{record.done:,} done, {record.failed:,} failed, {record.cancelled:,} cancelled, {record.open:,} not ended"
    return printable(f"{record.id}  {record.name}: {queries.state_of(record)}, {ends}")
