"""Start of a pool's children: forked from the loaded supervisor, or executed anew for gevent."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

import dramatiq

from switchyard.broker.cores import usable_cpus
from switchyard.broker.late_imports import is_patched
from switchyard.broker.topology import Pool
from switchyard.conf import switchyard_settings
from switchyard.workers.child.gevent import become_child
from switchyard.workers.child.main import Assignment, serve
from switchyard.workers.shared.child_table import ChildTable
from switchyard.workers.shared.fork import fork, import_path

logger = logging.getLogger("switchyard.workers")


def pin(pool: Pool) -> None:
    """Pin this process, and the threads and processes it starts later, to a pool's CPUs."""
    usable = usable_cpus()
    if not pool.cpus or usable is None:
        return
    existing = usable.intersection(pool.cpus)
    if existing:
        os.sched_setaffinity(0, existing)
    else:
        named = ", ".join(map(str, sorted(pool.cpus)))
        logger.warning("pool %s: not pinned, none of its CPUs may be used: %s", pool.name, named)


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
