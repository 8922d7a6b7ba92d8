"""``manage.py queues``: list queues, pause, resume, show messages, relocate messages."""

from __future__ import annotations

import json
from argparse import SUPPRESS, ArgumentParser
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import dramatiq
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.table import Table

from apps.platform.conf import declared_yard
from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.console.formatting import duration, promise
from apps.platform.operations import queries
from broker.admin.browse import BrowsedMessage, look
from broker.admin.relocate import relocate
from broker.errors import UnknownQueue
from broker.keys.queue_keys import Lane
from broker.queue import administration
from broker.queue.operations import QueueOperations
from broker.redis_broker import RedisBroker
from middleware.logs import printable
from middleware.redaction import redacted

EXAMPLES = """examples:
  manage.py queues                                        list every queue
  manage.py queues pause slow                             start nothing of slow; running messages continue
  manage.py queues resume slow
  manage.py queues show webhook --lane retry --place scheduled --limit 20
  manage.py queues relocate render_report --from default --to slow"""


class Command(BaseCommand):
    """List and operate queues. Exit 1: the broker does not answer, or the queue does not exist."""

    help = "List every queue; pause, resume or show one; move an actor's waiting messages to another."

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("--json", action="store_true", help="print JSON")
        acts = parser.add_subparsers(dest="act", metavar="pause|resume|show|relocate")
        for act, text in (("pause", "start nothing; running messages continue"), ("resume", "start messages again")):
            turn = acts.add_parser(act, help=text)
            turn.add_argument("queue", metavar="QUEUE")
            turn.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")
        show = acts.add_parser("show", help="list messages")
        show.add_argument("queue", metavar="QUEUE")
        show.add_argument("--lane", choices=["live", "retry"], default="live")
        show.add_argument("--place", choices=["waiting", "scheduled", "leased"], default="waiting")
        show.add_argument("--limit", type=int, default=20, help="messages, at most 500 (default 20)")
        show.add_argument("--cursor", type=int, default=0, help="cursor printed by the previous page")
        show.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")
        move = acts.add_parser("relocate", help="move an actor's waiting messages to another queue")
        move.add_argument("actor", metavar="ACTOR")
        move.add_argument("--from", dest="source", metavar="QUEUE", required=True)
        move.add_argument("--to", dest="target", metavar="QUEUE", required=True)
        move.add_argument("--json", action="store_true", default=SUPPRESS, help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with as_command_error("queues"):
            match options["act"]:
                case "pause" | "resume" as act:
                    self._pause_or_resume(act, options["queue"], as_json=options["json"])
                case "show":
                    self._show(options)
                case "relocate":
                    self._relocate(options["actor"], options["source"], options["target"], as_json=options["json"])
                case _:
                    self._list(as_json=options["json"])

    def _pause_or_resume(self, act: str, queue: str, *, as_json: bool) -> None:
        family = _family(queue)
        changed = administration.pause(family) if act == "pause" else administration.resume(family)
        if as_json:
            self.stdout.write(json.dumps({"queue": queue, "paused": act == "pause", "changed": bool(changed)}))
            return
        text = {"pause": "paused: nothing starts, running messages continue", "resume": "resumed"}[act]
        self.stdout.write(f"{queue}: {text}" + ("" if changed else " (as before)"))

    def _show(self, options: dict[str, Any]) -> None:
        family = _family(options["queue"])
        lane, limit = cast(Lane, options["lane"]), min(max(options["limit"], 1), 500)
        page = look(family, lane, options["place"], cursor=max(options["cursor"], 0), limit=limit)
        found = [_described(seen) for seen in page.items]
        if options["json"]:
            self.stdout.write(json.dumps({"messages": found, "cursor": page.cursor}, indent=2))
            return
        for item in found:
            line = "  ".join(f"{name}={value}" for name, value in item.items() if value is not None)
            self.stdout.write(printable(line))
        if not found:
            self.stdout.write(f"{family.keys.lane_name(lane)}: nothing is {options['place']}")
        if page.cursor is not None:
            self.stdout.write(f"more: --cursor {page.cursor}")

    def _relocate(self, actor: str, source: str, target: str, *, as_json: bool) -> None:
        if source == target:
            raise CommandError(f"relocate: {source!r} is both the old and the new queue")
        moved = {"live": 0, "retry": 0}
        for lane in moved:
            for step in relocate(_family(source), _family(target), actor=actor, lane=cast(Lane, lane)):
                moved[lane] = step.moved
                if not as_json:
                    self.stdout.write(f"{lane}: {step.looked_at:,} of {step.waiting:,} looked at, {step.moved:,} moved")
        if as_json:
            self.stdout.write(json.dumps({"actor": actor, "from": source, "to": target, "moved": moved}))
        elif any(moved.values()):
            self.stdout.write(f"{actor}: what waited in {source} waits in {target}; declare the actor there as well")
        else:
            self.stdout.write(f"{actor}: nothing of it waited in {source}; see manage.py queues show {source}")

    def _list(self, *, as_json: bool) -> None:
        state = queries.yard_state()
        if state.server.refusal:
            self.stderr.write(f"queues: the broker accepts no work: {state.server.refusal}. {state.server.remedy}")
        for item in state.server.findings:
            self.stderr.write(f"queues: {item.severity}: {item.seen}; {item.remedy}")
        found = queries.queues_of(state)
        if as_json:
            self.stdout.write(json.dumps([queue.as_json() for queue in found], indent=2))
            return
        terminal = self.stdout.isatty()
        console = Console(file=cast(TextIO, self.stdout), width=None if terminal else 160, highlight=False)
        console.print(_table(found))


def _family(queue: str) -> QueueOperations:
    try:
        name = declared_yard().queue_of(queue).name
    except UnknownQueue as error:
        raise CommandError(str(error)) from error
    broker = dramatiq.get_broker()
    if not isinstance(broker, RedisBroker):
        raise CommandError(f"queues: a {type(broker).__name__} can neither be browsed nor paused")
    return broker.lane(name)[0]


def _described(seen: BrowsedMessage) -> dict[str, Any]:
    message = seen.message
    payload: dict[str, Any] = {}
    if message is not None:
        actor = dramatiq.get_broker().actors.get(message.actor_name)
        payload = redacted(actor, {"args": list(message.args), "kwargs": message.kwargs})
    return {
        "id": seen.id,
        "actor": message.actor_name if message else None,
        "due_at": datetime.fromtimestamp(seen.due_at / 1000, UTC).isoformat() if seen.due_at else None,
        "owner": seen.owner,
        "attempts": message.options.get("attempts", 0) if message else None,
        "size_bytes": seen.size_bytes,
        **payload,
    }


def _table(found: list[queries.QueueState]) -> Table:
    table = Table(box=None, header_style="bold")
    counted = ("waiting", "scheduled", "parked", "running", "retrying", "dead", "quarantined")
    for name in ("queue", *counted, "oldest", "promise"):
        table.add_column(name, justify="left" if name in ("queue", "promise") else "right")
    table.add_column("busy/slots", justify="right")
    for queue in found:
        age, objective = queue.oldest_age_ms, queue.objective_ms
        late = age is not None and objective is not None and age > objective
        slots = f"{queue.slots_busy}/{queue.slots}" if queue.pools_up else "no pool"
        oldest = "" if age is None else duration(age)
        table.add_row(
            queue.queue + (" (paused)" if queue.paused else ""),
            *(f"{getattr(queue, name):,}" for name in counted),
            f"[red]{oldest}[/red]" if late else oldest,
            promise(objective),
            slots,
        )
    return table
