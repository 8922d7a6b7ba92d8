"""``manage.py switchyard run``: run a small yard: one pool for every queue, schedules and history in one tree."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand, CommandParser

from switchyard.broker.topology import SMALL
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.commands import refuse, seconds, show_examples
from switchyard.long_running import run_until_signal
from switchyard.workers.preflight import prepare
from switchyard.workers.shared.fork import name_process, run_or_crash
from switchyard.workers.supervisor.supervisor import BESIDE, GRACE_S, Supervisor

EXAMPLES = """examples:
  manage.py switchyard run                   SWITCHYARD_SMALL is the number of jobs that run at once, in the web as well
  manage.py switchyard run --grace 60        a minute for running jobs to end"""

# Longer than the scheduler and the history writer take to end their rounds.
STOP_WITHIN_S = 10.0
# Of glibc's malloc.h. Two heaps instead of one for each thread: 27 threads of a small yard had 18 MB in them.
M_ARENA_MAX, ARENAS = -8, 2


class Command(BaseCommand):
    """One supervisor, its child, and a process for schedules and history. Exits 0 drained, 70 crashed, 78 refused."""

    help = "Run a small yard: all queues in one pool, schedules and history, until SIGTERM or SIGINT drains them."
    requires_system_checks = []  # refuse_if_wrong runs them, and exits as promised

    def add_arguments(self, parser: CommandParser) -> None:
        show_examples(parser, EXAMPLES)
        text = f"seconds for running tasks to end, default {GRACE_S:g}"
        parser.add_argument("--grace", type=seconds, default=GRACE_S, help=text)

    def handle(self, **options: Any) -> None:
        yard = declared_yard()
        if not yard.is_small:
            refuse(
                "SWITCHYARD_SMALL: is not set, and run serves a yard of one pool; set it to the jobs to run at once, "
                f"{len(yard.promises)} or more, in every process, the web too; "
                "or run the topology's pools with runpools"
            )
        if switchyard_settings().place is not None:
            refuse("SWITCHYARD_BROKER_URL: a small yard keeps its queues on Redis or Valkey; name such a server")
        [pool] = yard.pools
        prepare([pool])
        name_process(f"pool {SMALL}")
        with contextlib.suppress(AttributeError):  # another C library has no such option
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, ARENAS)  # its children inherit it
        supervisor = Supervisor(pool, grace_s=options["grace"], beside=run_beside)
        sys.exit(run_or_crash(supervisor.run))


def run_beside() -> int:
    """Run the scheduler, the history writer and the outbox's relay until a signal stops them; return 0."""
    from switchyard.commands.runscheduler import run_scheduler

    runs: list[Any] = [run_scheduler]
    if apps.is_installed("switchyard.history"):  # a project may be without it
        from switchyard.history.writer import RUNS

        runs += RUNS
    run_until_signal(*runs, name=BESIDE, logger="switchyard.scheduler", stop_within_s=STOP_WITHIN_S)
    return 0
