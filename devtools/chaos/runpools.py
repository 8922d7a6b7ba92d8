"""``manage.py switchyard runpools``: run several pools under one parent, with injected faults if requested."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser

from devtools.chaos.process import Chaos, read_rate
from switchyard.commands import runpools
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.commands import refuse

CHAOS_EXAMPLE = """
  manage.py switchyard runpools --chaos 6/m --chaos-seed 7   inject faults at this rate and account for every message"""


class Command(runpools.Command):
    """The library's ``runpools`` with ``--chaos``."""

    examples = runpools.Command.examples + CHAOS_EXAMPLE

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--chaos", metavar="RATE", help="inject faults at this rate, such as 6/m")
        parser.add_argument(
            "--chaos-seed", type=int, help="seed of an earlier run, to repeat its faults; default: a random one"
        )

    def make_companion(self, options: dict[str, Any]) -> Chaos | None:
        """Return the process that injects faults; ``None`` without ``--chaos``."""
        if not options["chaos"]:
            return None
        if not settings.DEBUG:
            refuse("--chaos kills workers and cuts their connections; it is for development, where DJANGO_DEBUG is 1")
        seed = secrets.randbelow(1_000_000) if options["chaos_seed"] is None else options["chaos_seed"]
        try:
            per_s = read_rate(options["chaos"])
        except ValueError as error:
            raise CommandError(f"--chaos: {error}", returncode=2) from error
        log = Path(switchyard_settings().state_dir) / "chaos" / f"attempts-{os.getpid()}"
        return Chaos(per_s, seed, declared_yard(), switchyard_settings().broker_url, log)

    def command_line(self, options: dict[str, Any]) -> list[str]:
        """Return the command line of the same run without ``--reload``."""
        arguments = super().command_line(options)
        if options["chaos"]:
            arguments.append(f"--chaos={options['chaos']}")
        if options["chaos_seed"] is not None:
            arguments.append(f"--chaos-seed={options['chaos_seed']}")
        return arguments
