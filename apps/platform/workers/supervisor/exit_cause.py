"""Why children end, and which of their messages are blamed for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apps.platform.workers.shared.child_table import Running
from apps.platform.workers.supervisor.leases import Leftovers
from middleware.redaction import without_secrets

# Exit codes of a child that drained; the second left tasks that had not ended.
CLEAN_EXITS = (0, 3)
# Of the log of a child that crashed, kept with what it ran.
MOST_LINES, LONGEST_LINE = 10, 400


@dataclass(slots=True)
class ExitCause:
    """Why the supervisor ends a child.

    Args:
        why: For metrics.
        over: The messages over their limits, or asked to stop, that it is ended for.
        crash: What it says to those who fetch what it ran, when that counts as a crash.
    """

    why: str
    over: tuple[Running, ...] = ()
    crash: str = ""
    killed: bool = False


def blame(estate: Leftovers, ending: ExitCause | None, *, clean: bool, told: str) -> tuple[tuple[Running, ...], str]:
    """Return the messages that ended a child, or may have, and what is said of it.

    Args:
        clean: It exited with one of :data:`CLEAN_EXITS`.
        told: How it ended, for people.
    """
    if ending is not None and ending.over:  # clean or not: one that left them when its grace was over, too
        over = {(ran.lane, ran.id, ran.token) for ran in ending.over}
        guilty = tuple(ran for ran in estate.running if (ran.lane, ran.id, ran.token) in over and ran.limit_ns)
        return guilty, f"limit of {guilty[0].limit_ns / 1e9:g} s" if guilty else ""
    running = tuple(ran for ran in estate.running if ran.limit_ns)
    if ending is not None and ending.crash:
        return running, ending.crash
    if clean or (ending is not None and ending.killed):
        return (), ""
    return running, told


def shown(lines: Sequence[str]) -> list[str]:
    """Return the last of a child's log lines as they may be shown to people, at most so many and so long."""
    return [without_secrets(line)[:LONGEST_LINE] for line in lines[-MOST_LINES:]]
