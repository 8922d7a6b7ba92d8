"""``manage.py broker``: check the broker's server, or accept its keyspace after a loss."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand

from apps.platform.console.command_errors import as_command_error
from apps.platform.console.command_help import show_examples
from apps.platform.workers.broker_watch import make_watch

EXAMPLES = """examples:
  manage.py broker             check its server
  manage.py broker --json      for a program; exit 1: not safe, or unavailable
  manage.py broker accept      after its keyspace was emptied, and nothing can be restored"""


class Command(BaseCommand):
    """Check the broker's server, or accept its keyspace. Exit 1: the server is not safe or unavailable."""

    help = "Check the broker's server; `accept` lets workers resume in a keyspace that was emptied."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("action", nargs="?", choices=("show", "accept"), default="show")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the action."""
        watch = make_watch()
        try:
            if options["action"] == "accept":
                with as_command_error("broker"):
                    watch.generation.accept()
                message = "broker: the keyspace is accepted; paused workers resume within seconds"
                self.stdout.write(json.dumps({"accepted": True}) if options["json"] else message)
                return
            health = watch.look()
        finally:
            watch.close()
        wrong = health.red or any(found.code == "away" for found in health.findings)
        if options["json"]:
            findings = [asdict(found) for found in health.findings]
            self.stdout.write(json.dumps({"ok": not wrong, "findings": findings}, indent=2))
        else:
            for found in health.findings:
                self.stdout.write(f"{found.severity}: {found.seen}; {found.remedy}")
            if not health.findings:
                self.stdout.write("broker: nothing is wrong with its server")
        if wrong:
            sys.exit(1)
