"""``manage.py switchyard top``: the overview in a terminal, with the pages' keys."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any, TextIO, cast

from django.core.management.base import CommandError
from rich.console import Console

from switchyard.console.command_errors import WRONG_ARGUMENTS
from switchyard.console.command_help import show_examples
from switchyard.console.printing_command import PrintingCommand
from switchyard.top.printing import as_json, exit_code, print_frame, read_room

LEAST_INTERVAL_S, MOST_INTERVAL_S = 0.5, 3_600.0
DEFAULT_INTERVAL_S = 2.0
NOT_A_TERMINAL_WIDTH = 120
SIGNALLED = 128

EXAMPLES = """examples:
  manage.py switchyard top                    live; ? lists the keys, q leaves
  manage.py switchyard top --interval 10      over a slow line
  manage.py switchyard top --once             one frame; exit 0 healthy, 1 warnings, 2 errors, as doctor
  manage.py switchyard top --json             one frame for a program"""


class Command(PrintingCommand):
    """Show the overview; with ``--once`` or ``--json`` one frame with the doctor's exit codes."""

    help = "Show the overview in this terminal, live: the verdict, what helps, queues, pools, running jobs, alerts."
    requires_system_checks = []  # the verdict reports them itself

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("--once", action="store_true", help="print one frame; also where no terminal is")
        parser.add_argument("--json", action="store_true", help="print one frame as JSON")
        parser.add_argument(
            "--interval", type=float, default=DEFAULT_INTERVAL_S, metavar="S", help="seconds between updates (2)"
        )

    def handle(self, *args: Any, once: bool, interval: float, **options: Any) -> None:
        """Run the live screen, or print one frame and exit with the code of the worst finding."""
        if not LEAST_INTERVAL_S <= interval <= MOST_INTERVAL_S:
            limits = f"{LEAST_INTERVAL_S:g} to {MOST_INTERVAL_S:g}"
            raise CommandError(f"--interval: {interval:g} s; choose {limits} s", returncode=WRONG_ARGUMENTS)
        if not (once or options["json"]) and self._live(interval):
            return
        room = read_room()
        if options["json"]:
            self.stdout.write(json.dumps(as_json(room), indent=2))
        else:
            terminal = self.stdout.isatty()
            width = None if terminal else NOT_A_TERMINAL_WIDTH
            out = cast(TextIO, self.stdout)
            print_frame(room, Console(file=out, width=width, highlight=False, no_color=options["no_color"] or None))
        self.stdout.flush()
        if code := exit_code(room):
            sys.exit(code)

    def _live(self, interval_s: float) -> bool:
        """Run the live screen; return whether there was a terminal for it."""
        try:
            from switchyard.top import screen
        except ImportError:  # a Python without curses
            return False
        if not screen.can_paint():
            return False
        try:
            screen.run(interval_s)
        except KeyboardInterrupt:
            pass
        except screen.SignalReceived as end:
            sys.exit(SIGNALLED + end.number)
        return True
