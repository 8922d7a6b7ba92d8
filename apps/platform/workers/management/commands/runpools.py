"""Run several pools' workers under one parent."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.platform.console.command_help import show_examples
from apps.platform.workers.child.cpu_affinity import refuse_if_not_pinnable
from apps.platform.workers.preflight import refuse, refuse_if_wrong
from apps.platform.workers.shared.fork import run_or_crash
from apps.platform.workers.supervisor.autoreload import keep_reloaded
from apps.platform.workers.supervisor.pool_group import PoolGroup
from apps.platform.workers.supervisor.supervisor import GRACE_S
from broker.errors import UnknownPool
from devtools.chaos.plan import Plan, read_rate
from devtools.chaos.process import Chaos

EXAMPLES = """examples:
  manage.py runpools                                 all pools; Ctrl-C drains them
  manage.py runpools urgent default --reload         two of them, started again when code changes
  manage.py runpools --chaos 6/m --chaos-seed 7      harm them so often, and count what came through"""


class Command(BaseCommand):
    """All pools, or those that are named, until SIGTERM. Exits 0 drained, 70 crashed, 78 refused to start."""

    help = "Run several pools' workers in little memory until SIGTERM or SIGINT drains them."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        show_examples(parser, EXAMPLES)
        parser.add_argument("pools", metavar="NAME", nargs="*", help="pools of project/topology.py; default all")
        parser.add_argument(
            "--chaos", metavar="RATE", help="harm the pools so often, such as 6/m; for development only"
        )
        parser.add_argument("--chaos-seed", type=int, help="harms the same again; default: another one each time")
        parser.add_argument("--reload", action="store_true", help="drain and start again when a Python file changes")
        parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds for running tasks to end, default 25")

    def handle(self, **options: Any) -> None:
        """Run the pools."""
        try:
            # Named twice is meant once.
            pools = [settings.YARD.pool(name) for name in dict.fromkeys(options["pools"])]
        except UnknownPool as error:
            refuse(str(error))
        chaos = self._chaos(options["chaos"], options["chaos_seed"]) if options["chaos"] else None
        pools = pools or list(settings.YARD.pools)
        if options["reload"]:
            sys.exit(keep_reloaded(_arguments(**options)))
        refuse_if_wrong()
        refuse_if_not_pinnable(pools)
        parent = PoolGroup(pools, grace_s=options["grace"], chaos=chaos)
        sys.exit(run_or_crash(parent.run))

    def _chaos(self, rate: str, seed: int | None) -> Chaos:
        if not settings.DEBUG:
            refuse("--chaos kills workers and cuts their connections; it is for development, where DJANGO_DEBUG is 1")
        try:
            plan = Plan(read_rate(rate), secrets.randbelow(1_000_000) if seed is None else seed)
        except ValueError as error:
            raise CommandError(f"--chaos: {error}", returncode=2) from error
        notes = Path(settings.SWITCHYARD.state_dir) / "chaos" / f"notes-{os.getpid()}"
        return Chaos(plan, settings.YARD, settings.SWITCHYARD.broker_url, notes)


def _arguments(
    *, pools: list[str], grace: float, chaos: str | None, chaos_seed: int | None, **others: Any
) -> list[str]:
    """Return the command line of the same without ``--reload``."""
    harm = [f"--chaos={chaos}"] if chaos else []
    harm += [f"--chaos-seed={chaos_seed}"] if chaos_seed is not None else []
    return ["runpools", *pools, f"--grace={grace}", *harm]
