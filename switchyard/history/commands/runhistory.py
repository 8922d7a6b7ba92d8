"""``manage.py switchyard runhistory``: move ended jobs from the broker into the database."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandParser

from switchyard.console.command_help import show_examples
from switchyard.history.writer import LOGGER, HistoryWriter
from switchyard.until_signal import run_until_signal
from switchyard.workers.preflight import log_to_standard_error, refuse_if_wrong

STOP_WITHIN_S = 10.0

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


def run_until_stopped() -> None:
    """Run the writer until a signal stops it.

    Raises:
        SystemExit: with 70, when it crashed.
    """
    yield_to_other_work()
    run_until_signal(
        lambda stop: HistoryWriter().run(stop), name="history writer", logger=LOGGER, stop_within_s=STOP_WITHIN_S
    )


NICE: Final = 19
AUTOGROUP: Final = Path("/proc/self/autogroup")


def yield_to_other_work() -> None:
    """Lower the priority of this process, and of its session if it leads one.

    Where the kernel groups processes by session (``kernel.sched_autogroup_enabled``), a process is nice only to those
    of its own session, and sessions have a priority of their own.
    """
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # a kernel without such groups, or a read-only /proc
            AUTOGROUP.write_text(str(NICE))
