"""Run several pools' workers under one parent."""

from __future__ import annotations

import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from apps.platform.workers.parent import PoolsParent
from apps.platform.workers.pinning import refuse_if_not_pinnable
from apps.platform.workers.preflight import refuse, refuse_if_wrong
from apps.platform.workers.processes import run_or_crash
from apps.platform.workers.supervisor import GRACE_S
from broker.errors import UnknownPool


class Command(BaseCommand):
    """All pools, or those that are named, until SIGTERM. Exits 0 drained, 70 crashed, 78 refused to start."""

    help = "Run several pools' workers in little memory until SIGTERM or SIGINT drains them."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the arguments."""
        parser.add_argument("pools", metavar="NAME", nargs="*", help="pools of project/topology.py; default all")
        parser.add_argument("--grace", type=float, default=GRACE_S, help="seconds for running tasks to end, default 25")

    def handle(self, **options: Any) -> None:
        """Run the pools."""
        try:
            # Named twice is meant once.
            pools = [settings.YARD.pool(name) for name in dict.fromkeys(options["pools"])]
        except UnknownPool as error:
            refuse(str(error))
        pools = pools or list(settings.YARD.pools)
        refuse_if_wrong()
        refuse_if_not_pinnable(pools)
        parent = PoolsParent(pools, grace_s=options["grace"])
        sys.exit(run_or_crash(parent.run))
