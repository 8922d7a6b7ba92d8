"""``manage.py switchyard runhistory``: move ended jobs from the broker into the database."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from switchyard.console.commands import show_examples
from switchyard.history.writer import run_until_stopped
from switchyard.workers.preflight import log_to_standard_error, refuse_if_wrong

EXAMPLES = """examples:
  manage.py switchyard runhistory                        beside pools that run one by one; runpools starts one itself"""


class Command(BaseCommand):
    """Run the history writer until SIGTERM or SIGINT. Of several writers one writes, the others stand by."""

    help = "Write ended jobs into the database, at the lowest priority. Several may run; one writes."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal; exit 0, 70 if the writer crashed, or 78 if the configuration is invalid."""
        log_to_standard_error()
        refuse_if_wrong()
        run_until_stopped()
