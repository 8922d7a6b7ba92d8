"""``manage.py switchyard broker``: check the broker's server, or accept its keyspace after a loss."""

import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser

from switchyard.broker.health.server import ServerFinding
from switchyard.conf import switchyard_settings
from switchyard.console.commands import PrintingCommand, as_command_error
from switchyard.middleware.logs import printable
from switchyard.workers.preflight import make_watch

EXAMPLES = """examples:
  manage.py switchyard broker             check its server
  manage.py switchyard broker --json      for a program; exit 1: not safe, or unavailable
  manage.py switchyard broker accept      after its keyspace was emptied, and nothing can be restored"""


class Command(PrintingCommand):
    """Check the broker's server, or accept its keyspace. Exit 1: the server is not safe or unavailable."""

    help = "Check the broker's server; `accept` lets workers resume in a keyspace that was emptied."
    examples = EXAMPLES

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("action", nargs="?", choices=("show", "accept"), default="show")

    def handle(self, *args: Any, **options: Any) -> None:
        watch = make_watch()
        try:
            if options["action"] == "accept":
                with as_command_error("broker"):
                    watch.generation.accept()
                message = "broker: the keyspace is accepted; paused workers resume within seconds"
                self.answer(message, {"accepted": True})
                return
            health = watch.look()
        finally:
            watch.close()
        of_addons = list(_of_addons())
        safe = not (health.red or of_addons or any(found.code == "away" for found in health.findings))
        findings, place = [*health.findings, *of_addons], switchyard_settings().place
        servers = f"{place.title} and the Redis server beside it" if place else "its server"
        lines = [printable(f"{found.severity}: {found.seen}; {found.remedy}") for found in findings]
        value = {"ok": safe, "findings": [asdict(found) for found in findings]}
        self.answer(lines or f"broker: nothing is wrong with {servers}", value, indent=2)
        if not safe:
            sys.exit(1)


def _of_addons() -> Iterator[ServerFinding]:
    """Yield what is wrong with servers of add-ons."""
    for addon in switchyard_settings().addons:
        for found in addon.call("look", ()):
            if found.severity == "error":
                seen = f"{found.seen}. {found.cause}"
                yield ServerFinding(f"{addon.name}_{found.code}", "error", seen, found.next)
