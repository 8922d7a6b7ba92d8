"""What waits against the code, before the code is deployed."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

import dramatiq
from django.core.management.base import BaseCommand, CommandError

from apps.platform.conf import declared_yard
from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.operations.backlog import Backlog, families, look_through
from broker.redis_broker import RedisBroker
from middleware.logs import printable

EXAMPLES = """run it with the new code against the broker of the old one, before you deploy:
  manage.py check_backlog                       everything that waits, is scheduled, retries or runs
  manage.py check_backlog --queue billing --queue default
  manage.py check_backlog --json                for a pipeline; exit 1 stops it

what it finds would wait for 10 minutes for a worker that knows it, then become dead letters; see
docs/how-to/deploy-new-code.md"""

SAID_EVERY_S = 2.0


class Command(BaseCommand):
    """Exit 1: the code could not run something that is there, or the broker does not answer."""

    help = "Compare what waits with this code; exit 1 when deploying it would break something. Only reads."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.add_argument(
            "--queue", action="append", default=[], metavar="QUEUE", help="only this one; may be repeated"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Look, and tell."""
        broker = dramatiq.get_broker()
        if not isinstance(broker, RedisBroker):
            raise CommandError(f"check_backlog: a {type(broker).__name__} cannot be looked into")
        self._said_s = time.monotonic()
        with as_command_error("check_backlog"):
            found = families(broker, declared_yard())
            if unknown := set(options["queue"]) - found.keys():
                raise CommandError(
                    f"check_backlog: no queue {', '.join(sorted(unknown))}; there are {', '.join(found)}"
                )
            chosen = [found[name] for name in options["queue"] or found]
            backlog = look_through(chosen, broker, declared_yard(), told=self._tell)
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(backlog), indent=2))
        else:
            self._show(backlog)
        if backlog.troubles:
            sys.exit(1)

    def _tell(self, looked_at: int) -> None:
        if time.monotonic() - self._said_s >= SAID_EVERY_S:
            self._said_s = time.monotonic()
            self.stderr.write(f"check_backlog: {looked_at:,} messages looked at")

    def _show(self, backlog: Backlog) -> None:
        for trouble in backlog.troubles.values():
            samples = f" (such as {', '.join(trouble.samples)})" if trouble.samples else ""
            told = f"{trouble.queue}: {trouble.count:,} of {trouble.actor}: {trouble.detail}{samples}"
            self.stdout.write(printable(told))
        actors = f"{_count(backlog.looked_at, 'message')} of {_count(len(backlog.by_actor), 'actor')} looked at"
        if backlog.troubles:
            self.stdout.write(f"{actors}; this code cannot run all of them")
        else:
            self.stdout.write(f"{actors}; this code can run all of them")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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
