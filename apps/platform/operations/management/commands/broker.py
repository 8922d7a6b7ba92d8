"""The broker's server, from a terminal: what is wrong with it, and going on after its keyspace was lost."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from apps.platform.operations.terminal import in_words
from apps.platform.workers.broker_watch import make_watch


class Command(BaseCommand):
    """Show what is wrong with the broker's server, or accept its keyspace. Exit 1: it is not safe, or away."""

    help = "Show what is wrong with the broker's server; `accept` lets workers go on in a keyspace that was emptied."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        parser.add_argument("action", nargs="?", choices=("show", "accept"), default="show")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it."""
        watch = make_watch()
        try:
            if options["action"] == "accept":
                with in_words("broker"):
                    watch.generation.accept()
                self.stdout.write("broker: the keyspace is accepted as it is; workers that paused go on within seconds")
                return
            health = watch.look()
        finally:
            watch.close()
        for found in health.findings:
            self.stdout.write(f"{found.severity}: {found.seen}; {found.remedy}")
        if health.red or any(found.code == "away" for found in health.findings):
            sys.exit(1)
        if not health.findings:
            self.stdout.write("broker: nothing is wrong with its server")
