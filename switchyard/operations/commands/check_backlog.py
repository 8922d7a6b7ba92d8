"""``manage.py switchyard check_backlog``: compare the backlog with the code, before the code is deployed."""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

import dramatiq
from django.core.management.base import CommandError

from switchyard.broker.redis_broker import RedisBroker
from switchyard.conf import declared_yard
from switchyard.console.command_errors import as_command_error
from switchyard.console.command_help import show_examples
from switchyard.console.formatting import counted
from switchyard.console.printing_command import PrintingCommand
from switchyard.middleware.logs import printable
from switchyard.operations.backlog import Backlog, check_backlog, families

EXAMPLES = """run it with the new code against the broker of the old one, before you deploy:
  manage.py switchyard check_backlog                       every message, in any state
  manage.py switchyard check_backlog --queue billing --queue default
  manage.py switchyard check_backlog --json                for a pipeline; exit 1 stops it

the messages it reports would wait 10 minutes for a worker that can run them, then become dead letters; see
docs/how-to/deploy-new-code.md"""

REPORT_EVERY_S = 2.0


class Command(PrintingCommand):
    """Compare the backlog with the code. Exit 1: the code cannot run a message, or the broker does not answer."""

    help = "Compare the backlog with this code; exit 1 when this code cannot run a message. Only reads."

    def add_arguments(self, parser: ArgumentParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--queue", action="append", default=[], metavar="QUEUE", help="only this queue; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Read the backlog and print the result."""
        broker = dramatiq.get_broker()
        if not isinstance(broker, RedisBroker):
            raise CommandError(f"check_backlog: a {type(broker).__name__} cannot be browsed")
        self._reported_s = time.monotonic()
        with as_command_error("check_backlog"):
            found = families(broker, declared_yard())
            if unknown := set(options["queue"]) - found.keys():
                raise CommandError(
                    f"check_backlog: no queue {', '.join(sorted(unknown))}; there are {', '.join(found)}"
                )
            chosen = [found[name] for name in options["queue"] or found]
            backlog = check_backlog(chosen, broker, declared_yard(), report=self._report)
        if options["json"]:
            self.print_json(_as_json(backlog))
        else:
            self._show(backlog)
        if backlog.troubles:
            sys.exit(1)

    def _report(self, looked_at: int) -> None:
        if time.monotonic() - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = time.monotonic()
            self.stderr.write(f"check_backlog: {looked_at:,} messages looked at")

    def _show(self, backlog: Backlog) -> None:
        for trouble in backlog.troubles.values():
            samples = f" (such as {', '.join(trouble.samples)})" if trouble.samples else ""
            line = f"{trouble.queue}: {trouble.count:,} of {trouble.actor}: {trouble.detail}{samples}"
            self.stdout.write(printable(line))
        actors = f"{counted(backlog.looked_at, 'message')} of {counted(len(backlog.by_actor), 'actor')} looked at"
        self.stdout.write(f"{actors}; this code {'cannot' if backlog.troubles else 'can'} run all of them")


def _as_json(backlog: Backlog) -> dict[str, Any]:
    return {
        "ok": not backlog.troubles,
        "looked_at": backlog.looked_at,
        "actors": [
            {"queue": queue, "actor": actor, "count": count}
            for (queue, actor), count in sorted(backlog.by_actor.items())
        ],
        "troubles": [asdict(trouble) for trouble in backlog.troubles.values()],
    }
