"""Start of a pool's children: forked from the loaded supervisor, or executed anew for gevent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

import dramatiq
from django.conf import settings

from switchyard.broker.topology import Pool
from switchyard.conf import switchyard_settings
from switchyard.console.commands import refuse
from switchyard.workers.child.gevent import become_child
from switchyard.workers.child.main import Assignment, serve
from switchyard.workers.shared.child_table import ChildTable
from switchyard.workers.shared.fork import fork, import_path, is_patched

logger = logging.getLogger("switchyard.workers")


def usable_cpus() -> frozenset[int] | None:
    """Return the CPUs that this process may use; ``None`` where the platform pins no processes (macOS)."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def refuse_if_not_pinnable(pools: Iterable[Pool]) -> None:
    """Exit 78 when a pool names a CPU that this process may not use.

    In development the CPU is only warned about, and the pool runs on the CPUs that exist. A platform without pinning
    is warned about as well.
    """
    usable = usable_cpus()
    for pool in pools:
        if not pool.cpus:
            continue
        if usable is None:
            logger.warning("pool %s: cpus is ignored, this platform pins no processes", pool.name)
            continue
        missing = sorted(set(pool.cpus) - usable)
        if not missing:
            continue
        fact = (
            f"pool {pool.name}: cpus names {_listed(missing)}, this process may use {_listed(usable)}; "
            "name some of these in the topology, or leave cpus out"
        )
        if not settings.DEBUG:
            refuse(fact)
        logger.warning("%s", fact)


def pin(pool: Pool) -> None:
    """Pin this process, and the threads and processes it starts later, to a pool's CPUs."""
    usable = usable_cpus()
    if not pool.cpus or usable is None:
        return
    existing = usable.intersection(pool.cpus)
    if existing:
        os.sched_setaffinity(0, existing)
    else:
        logger.warning("pool %s: not pinned, none of its CPUs may be used: %s", pool.name, _listed(pool.cpus))


def _listed(cpus: Iterable[int]) -> str:
    return ", ".join(str(cpu) for cpu in sorted(cpus))


def start_child(assignment: Assignment, table: ChildTable, *, close_inherited: Iterable[Callable[[], None]]) -> int:
    """Start a child and return its pid.

    Args:
        close_inherited: Called in the child first, to close what belongs to the supervisor alone.
    """
    supervisor_pid = os.getpid()

    def run() -> int:
        pin(assignment.pool)  # before anything else: threads and executed programs inherit it
        # An isolated child runs one message at a time: it needs no greenlets, and is forked for a quick start.
        if assignment.pool.kind == "gevent":
            if is_patched():
                become_child(dramatiq.get_broker(), assignment.slots)
            elif not assignment.isolated:
                _execute(assignment, table)
        return serve(assignment, table.rows[assignment.index - 1], parent_pid=supervisor_pid)

    return fork(run, title=assignment.title, close_inherited=close_inherited)


def _execute(assignment: Assignment, table: ChildTable) -> NoReturn:
    os.set_inheritable(table.fd, True)
    arguments = [assignment.to_argument(), str(table.fd), str(len(table.rows)), str(table.slots)]
    execute("switchyard.workers.child.gevent_main", arguments)


def execute(module: str, arguments: Iterable[str]) -> NoReturn:
    """Replace this process by a module of the project, run anew with arguments."""
    os.execve(  # noqa: S606  our own interpreter and module
        sys.executable,
        [sys.executable, "-m", module, *arguments],
        {**os.environ, "PYTHONPATH": import_path(), "SWITCHYARD_RELEASE": switchyard_settings().release},
    )
