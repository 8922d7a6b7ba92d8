"""Causes of a child's end, and the messages that are suspected of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from switchyard.middleware.redaction import without_secrets
from switchyard.workers.shared.child_state import Running
from switchyard.workers.supervisor.leases import Leftovers

# Exit codes of a child that drained; with the second one some tasks had not ended.
CLEAN_EXITS = (0, 3)
STUCK_MESSAGE = "stuck_message"
# Reasons for a replacement that is counted under its reason although the child drained.
REPLACED = ("recycled", STUCK_MESSAGE)
# Limits of the log excerpt that is kept with the messages of a crashed child.
MOST_LINES, LONGEST_LINE = 10, 400


@dataclass(slots=True)
class ExitCause:
    """Reason for which the supervisor ends a child.

    Args:
        why: Label for metrics.
        over: Messages over their limits, or cancelled, for which it is ended.
        crash: Cause to note with its running messages, when the end counts as a crash of theirs.
        killed: Whether it was sent SIGKILL.
    """

    why: str
    over: tuple[Running, ...] = ()
    crash: str = ""
    killed: bool = False


def suspects_of(
    leftovers: Leftovers, exit_cause: ExitCause | None, *, clean: bool, description: str
) -> tuple[tuple[Running, ...], str]:
    """Return the messages that crashed a child, or may have, and the cause to store with them.

    Args:
        clean: Whether it exited with one of :data:`CLEAN_EXITS`.
        description: How the child ended, as text for logs.
    """
    if exit_cause is not None and exit_cause.over:  # also after a clean exit: the grace may end before they do
        over = {(ran.lane, ran.id, ran.token) for ran in exit_cause.over}
        suspects = tuple(ran for ran in leftovers.running if (ran.lane, ran.id, ran.token) in over and ran.limit_ns)
        return suspects, f"limit of {suspects[0].limit_ns / 1e9:g} s" if suspects else ""
    running = tuple(ran for ran in leftovers.running if ran.limit_ns)
    if exit_cause is not None and exit_cause.crash:
        return running, exit_cause.crash
    if clean or (exit_cause is not None and exit_cause.killed):
        return (), ""
    return running, description


def redacted_lines(lines: Sequence[str]) -> list[str]:
    """Return the last log lines of a child without secrets: at most 10, of at most 400 characters."""
    return [without_secrets(line)[:LONGEST_LINE] for line in lines[-MOST_LINES:]]
