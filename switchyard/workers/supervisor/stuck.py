"""Replacement of children that hold a message past its hard limit which nothing runs."""

from __future__ import annotations

import logging

from switchyard.workers.supervisor.children import ChildManager
from switchyard.workers.supervisor.exit_cause import STUCK_MESSAGE, ExitCause

logger = logging.getLogger("switchyard.workers")


def replace_stuck(children: ChildManager) -> None:
    """Terminate children whose rows are marked as stuck, see :mod:`switchyard.workers.child.stuck_messages`.

    Their running tasks have the grace period. Messages that are left are returned without counting a crash.
    """
    if children.stopping or children.paused:
        return
    for process in children.running:
        if children.rows[process.index].stuck and process.index not in children.exit_causes:
            logger.error(
                "pool %s: child %d holds a message past its hard limit that no thread runs; it is replaced",
                children.pool.name, process.index,
            )  # fmt: skip
            children.exit_causes[process.index] = ExitCause(STUCK_MESSAGE)
            children.replace(process)
