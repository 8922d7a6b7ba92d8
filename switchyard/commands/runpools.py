"""``manage.py switchyard runpools``: run several pools' workers under one parent."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandParser

from switchyard.broker.errors import NotFound
from switchyard.conf import declared_yard
from switchyard.console.commands import refuse, seconds, show_examples
from switchyard.workers.group.autoreload import RELOAD_GRACE_S, keep_reloaded
from switchyard.workers.group.pool_group import PoolGroup
from switchyard.workers.preflight import prepare
from switchyard.workers.shared.fork import run_or_crash
from switchyard.workers.supervisor.supervisor import GRACE_S

EXAMPLES = """examples:
  manage.py switchyard runpools                                 all pools; Ctrl-C drains them
  manage.py switchyard runpools urgent default --reload         two of them, started again when code changes"""


class Command(BaseCommand):
    """All pools, or those that are named, until SIGTERM. Exits 0 drained, 70 crashed, 78 refused to start."""

    help = "Run several pools' workers in little memory until SIGTERM or SIGINT drains them."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        parser.add_argument("pools", metavar="NAME", nargs="*", help="pools of the topology; default all")
        text = "drain the pools and start them again when a Python file changes"
        parser.add_argument("--reload", action="store_true", help=text)
        text = f"seconds for tasks to end, default {GRACE_S:g}, with --reload {RELOAD_GRACE_S:g}"
        parser.add_argument("--grace", type=seconds, help=text)
        parser.add_argument("--no-history", action="store_true", help="do not start the history writer, see runhistory")

    def handle(self, **options: Any) -> None:
        try:
            # A pool that is named twice runs once.
            pools = [declared_yard().pool(name) for name in dict.fromkeys(options["pools"])]
        except NotFound as error:
            refuse(str(error))
        pools = pools or list(declared_yard().pools)
        if options["grace"] is None:
            options["grace"] = RELOAD_GRACE_S if options["reload"] else GRACE_S
        if options["reload"]:
            no_history = ["--no-history"] if options["no_history"] else []
            line = ["switchyard", "runpools", *options["pools"], f"--grace={options['grace']}", *no_history]
            sys.exit(keep_reloaded(line))
        prepare(pools)
        # A project may be without the history's app.
        writes = apps.is_installed("switchyard.history") and not options["no_history"]
        parent = PoolGroup(pools, grace_s=options["grace"], history=run_history if writes else None)
        sys.exit(run_or_crash(parent.run))


def run_history() -> int:
    """Run the history writer in this process until a signal stops it; return 0. Workers do not import the history."""
    from switchyard.history.writer import run_until_stopped

    run_until_stopped()
    return 0
