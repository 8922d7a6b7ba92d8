"""``manage.py switchyard run``, ``runpool``, ``runpools``: run a small yard, one pool, or several under one parent."""

import contextlib
import ctypes
import sys
from collections.abc import Iterable
from typing import Any

from django.apps import apps
from django.core.management.base import CommandParser

from switchyard.broker.errors import NotFound
from switchyard.broker.topology import SMALL, Pool
from switchyard.commands.beside import RunningCommand, scheduler
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.commands import port, refuse, seconds
from switchyard.long_running import run_until_signal
from switchyard.workers.pool_group import RELOAD_GRACE_S, PoolGroup, keep_reloaded
from switchyard.workers.preflight import prepare
from switchyard.workers.shared.fork import name_process, run_or_crash
from switchyard.workers.supervisor.supervisor import BESIDE, GRACE_S, Supervisor

# Longer than the scheduler and the history writer take to end their rounds.
STOP_WITHIN_S = 10.0
# Of glibc's malloc.h. Two heaps instead of one for each thread: 27 threads of a small yard had 18 MB in them.
M_ARENA_MAX, ARENAS = -8, 2


class Draining(RunningCommand):
    """Command that runs workers, which a signal drains."""

    grace_s: float | None = GRACE_S
    grace_text = f"seconds for running tasks to end, default {GRACE_S:g}"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--grace", type=seconds, default=self.grace_s, help=self.grace_text)


class Run(Draining):
    """One supervisor, its child, and a process for schedules and history."""

    help = "Run a small yard: all queues in one pool, schedules and history, until SIGTERM or SIGINT drains them."
    examples = """examples:
  manage.py switchyard run                   SWITCHYARD_SMALL is the number of jobs that run at once, in the web as well
  manage.py switchyard run --grace 60        a minute for running jobs to end"""

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
    runs: list[Any] = [scheduler()]
    if apps.is_installed("switchyard.history"):  # a project may be without it
        from switchyard.history.writer import RUNS

        runs += RUNS
    run_until_signal(*runs, name=BESIDE, logger="switchyard.scheduler", stop_within_s=STOP_WITHIN_S)
    return 0


class RunPool(Draining):
    """One supervisor and its children."""

    help = "Run one pool's workers until SIGTERM or SIGINT drains them; a second signal stops them at once."
    examples = """examples:
  manage.py switchyard runpool default
  manage.py switchyard runpool slow --metrics-port 9100 --metrics-host 0.0.0.0 --grace 60"""

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("pool", metavar="NAME", help="a pool of the topology")
        parser.add_argument("--metrics-port", type=port, default=0, help="default: a free one, which is reported")
        parser.add_argument("--metrics-host", default="127.0.0.1", help="default: loopback, only this machine reads it")

    def handle(self, *, metrics_host: str, metrics_port: int, grace: float, **options: Any) -> None:
        [pool] = _pools([options["pool"]])
        prepare([pool])
        name_process(f"pool {pool.name}")
        try:
            supervisor = Supervisor(pool, metrics_port=metrics_port, metrics_host=metrics_host, grace_s=grace)
        except OSError as error:
            where = f"{metrics_host}:{metrics_port}"
            refuse(f"pool {pool.name}: cannot serve metrics at {where} ({error.strerror}); name another --metrics-port")
        sys.exit(run_or_crash(supervisor.run))


class RunPools(Draining):
    """All pools, or those that are named."""

    help = "Run several pools' workers in little memory until SIGTERM or SIGINT drains them."
    examples = """examples:
  manage.py switchyard runpools                                 all pools; Ctrl-C drains them
  manage.py switchyard runpools urgent default --reload         two of them, started again when code changes"""
    grace_s = None
    grace_text = f"seconds for tasks to end, default {GRACE_S:g}, with --reload {RELOAD_GRACE_S:g}"

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("pools", metavar="NAME", nargs="*", help="pools of the topology; default all")
        text = "drain the pools and start them again when a Python file changes"
        parser.add_argument("--reload", action="store_true", help=text)
        parser.add_argument("--no-history", action="store_true", help="do not start the history writer, see runhistory")

    def handle(self, **options: Any) -> None:
        pools = _pools(options["pools"]) or list(declared_yard().pools)
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


def _pools(names: Iterable[str]) -> list[Pool]:
    """Return pools of the topology, one that is named twice once; exit 78 where it has none of a name."""
    try:
        return [declared_yard().pool(name) for name in dict.fromkeys(names)]
    except NotFound as error:
        refuse(str(error))


def run_history() -> int:
    """Run the history writer in this process until a signal stops it; return 0. Workers do not import the history."""
    from switchyard.history.writer import run_until_stopped

    run_until_stopped()
    return 0
