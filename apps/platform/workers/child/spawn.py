"""Starting a pool's children: forked from the loaded supervisor, or executed anew for gevent."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import NoReturn

import dramatiq

from apps.platform.conf import declared_yard, switchyard_settings
from apps.platform.workers.child.cpu_affinity import pin
from apps.platform.workers.child.gevent import become_child, is_patched
from apps.platform.workers.shared.child_table import ChildTable
from apps.platform.workers.shared.fork import fork, import_path
from broker.topology import Pool


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a child is to be.

    Args:
        title: Shown by ``ps``.
        child: Its name with the broker.
        place: Its row of the table, from 1.
        lanes: Names of the lanes it serves.
        slots: Messages it runs at once.
        grace_s: Seconds that its tasks may take to end when it drains.
        alone: It runs what may take it down, and ends when there is nothing left of it.
    """

    pool: Pool
    title: str
    child: str
    place: int
    lanes: tuple[str, ...]
    slots: int
    grace_s: float
    alone: bool

    def words(self) -> str:
        """Return it as one word for a command line."""
        return json.dumps({**asdict(self), "pool": self.pool.name})


def read_assignment(words: str) -> Assignment:
    """Return the assignment of a command line, with this yard's pool of that name."""
    fields = json.loads(words)
    return Assignment(**{**fields, "pool": declared_yard().pool(fields["pool"]), "lanes": tuple(fields["lanes"])})


def start_child(assignment: Assignment, table: ChildTable, *, shed: Iterable[Callable[[], None]]) -> int:
    """Start a child and return its pid.

    Args:
        shed: What the child lets go of that is the supervisor's alone.
    """
    from apps.platform.workers.child.main import (
        serve,  # before the fork: no child depends on what lies on the disk by then
    )

    supervisor_pid = os.getpid()

    def run() -> int:
        pin(assignment.pool)  # here, because threads, and what is executed, take it over
        # What runs alone has nobody to share its time with: it does not wait for another interpreter to load.
        if assignment.pool.kind == "gevent":
            if is_patched():
                become_child(dramatiq.get_broker(), assignment.slots)
            elif not assignment.alone:
                _execute(assignment, table)
        return serve(assignment, table.rows[assignment.place - 1], parent_pid=supervisor_pid)

    return fork(run, title=assignment.title, shed=shed)


def _execute(assignment: Assignment, table: ChildTable) -> NoReturn:
    os.set_inheritable(table.fd, True)
    arguments = [assignment.words(), str(table.fd), str(len(table.rows)), str(table.slots)]
    execute("apps.platform.workers.child.gevent_main", arguments)


def execute(module: str, arguments: Iterable[str]) -> NoReturn:
    """Become a module of the project, run anew with arguments."""
    os.execve(  # noqa: S606  our own interpreter and module
        sys.executable,
        [sys.executable, "-m", module, *arguments],
        {**os.environ, "PYTHONPATH": import_path(), "SWITCHYARD_RELEASE": switchyard_settings().release},
    )
