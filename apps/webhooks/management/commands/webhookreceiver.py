"""``manage.py webhookreceiver``: run a receiver whose endpoints work, fail, fail at first, are gone or are slow."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.webhooks import receiver


class Command(BaseCommand):
    """Run the receiver until SIGTERM."""

    help = "Receive webhooks on loopback for demos and tests; prints `ready: http://127.0.0.1:PORT/`."
    requires_system_checks = []

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        receiver.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve."""
        try:
            receiver.run(port=options["port"], secrets_file=options["secrets_file"], log_file=options["log_file"])
        except (OSError, OverflowError) as error:
            raise CommandError(f"webhookreceiver: {error}; choose another --port, 0 takes a free one") from error
