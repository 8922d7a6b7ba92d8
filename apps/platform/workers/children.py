"""Starting a pool's children: forked from the loaded supervisor, or executed anew for gevent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import NoReturn

from django.conf import settings

from apps.platform.workers.child import serve
from apps.platform.workers.processes import fork
from apps.platform.workers.table import Table
from broker.topology import Pool


def start_child(
    pool: Pool, number: int, table: Table, *, child: str, grace_s: float, shed: Iterable[Callable[[], None]]
) -> int:
    """Start child ``number`` (1 …) of a pool and return its pid.

    Args:
        child: Its name with the broker.
        shed: What the child lets go of that is the supervisor's alone.
    """
    row = table.rows[number - 1]
    supervisor_pid = os.getpid()

    def run() -> int:
        if pool.kind == "gevent":
            _execute(pool, number, table, child, grace_s)
        return serve(pool, row, child=child, grace_s=grace_s, parent_pid=supervisor_pid)

    return fork(run, title=f"{pool.name} child {number}", shed=shed)


def _execute(pool: Pool, number: int, table: Table, child: str, grace_s: float) -> NoReturn:
    os.set_inheritable(table.fd, True)
    # Started from wherever manage.py was: the project's own folder comes first, as it does for manage.py.
    path = os.pathsep.join(filter(None, (str(settings.BASE_DIR), os.environ.get("PYTHONPATH"))))
    arguments = [pool.name, str(number), child, str(table.fd), str(len(table.rows)), str(grace_s)]
    os.execve(  # noqa: S606  our own interpreter and module
        sys.executable,
        [sys.executable, "-m", "apps.platform.workers.gevent_child", *arguments],
        {**os.environ, "PYTHONPATH": path, "SWITCHYARD_RELEASE": settings.SWITCHYARD.release},
    )
