"""Instructions of operators to a supervisor, which it finds in the broker with each of its reports."""

from __future__ import annotations

import logging
from collections.abc import Callable

from switchyard.broker.stores.pool_reports import Instruction
from switchyard.workers.supervisor.children import ChildManager

logger = logging.getLogger("switchyard.workers")


class Instructions:
    """Obedience of one supervisor: each instruction once, and none that was meant for a process before it.

    Args:
        started_at: When the supervisor started, as it reports it, ms since the epoch.
        stop: Drains the pool.
    """

    def __init__(self, children: ChildManager, *, started_at: int, stop: Callable[[], None]) -> None:
        self.quieted: Instruction | None = None
        self._children = children
        self._started_at = started_at
        self._stop = stop
        self._obeyed = ""

    def obey(self, instruction: Instruction) -> bool:
        """Do what an operator asks; return whether that was new. The last instruction counts."""
        meant = instruction.started_at == self._started_at
        if not meant or instruction.id == self._obeyed or self._children.stopping:
            return False
        self._obeyed = instruction.id
        match instruction.verb:
            case "quiet":
                self.quieted = instruction
                self._children.set_quieted(True)
                effect = "quieted: its children fetch and start nothing, what runs ends"
            case "resume":
                self.quieted = None
                self._children.set_quieted(False)
                effect = "takes work again"
            case "stop":
                effect = "told to stop"
                self._stop()
            case other:  # of a newer release
                effect = f"does not know the instruction {other!r}; nothing is changed"
        name, by, reason = self._children.pool.name, instruction.by or "an operator", instruction.reason
        logger.warning("pool %s: %s, by %s%s", name, effect, by, f" ({reason})" if reason else "")
        return True
