"""Steps of keeping leases in one queue, each within the time of a tick and retried when the server refuses it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from switchyard.broker.errors import BrokerFull, BrokerRefused, BrokerUnavailable
from switchyard.broker.queue.operations import QueueOperations

# Longest time of a tick, and of one answer within it: a supervisor's loop waits that long for the server.
TICK_S: Final = 1.0
ANSWER_S: Final = 0.5
# Pause before a refused step is tried again.
REFUSED_S: Final = 1.0

Step = Literal["renewal", "join", "report", "reclaim", "sweep"]
STEPS: Final[tuple[Step, ...]] = ("renewal", "join", "report", "reclaim", "sweep")

logger = logging.getLogger(__name__)


class TickExhausted(Exception):
    """The time of a tick is used up; the rest of its work is left to the next one."""


class TickBudget(msgspec.Struct, frozen=True):
    """Time that a tick has left, until a monotonic deadline."""

    deadline_s: float

    def left(self) -> float:
        """Return how many seconds the next answer may take, at most 0.5; ``TickExhausted`` with under 10 ms left."""
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0.01:
            raise TickExhausted
        return min(left_s, ANSWER_S)


@dataclass(slots=True)
class ServedQueue:
    """A queue in which leases are kept: when each step is due next, and which steps the server refused last time."""

    operations: QueueOperations
    due_s: dict[Step, float] = field(default_factory=dict)
    refused: set[Step] = field(default_factory=set)

    def is_due(self, step: Step) -> bool:
        return time.monotonic() >= self.due_s.get(step, 0.0)

    def attempt(self, step: Step, act: Callable[[], None], *, again_s: float = 0.0) -> None:
        """Do a step, due again in ``again_s``. One that the server refuses is logged once and due again in a second.

        Where queues live at several places so is one whose place does not answer, and with it every other step of the
        queue: the queues of the other places go on.

        Raises:
            BrokerUnavailable: the only server did not answer.
            TickExhausted: the tick has no time left for the step.
        """
        name = self.operations.keys.queue
        try:
            act()
        except (BrokerFull, BrokerRefused) as error:
            if step not in self.refused:
                logger.error("queue %s: the broker refuses the lease %s, retried every second: %s", name, step, error)
            self.refused.add(step)
            self.due_s[step] = time.monotonic() + REFUSED_S
            return
        except BrokerUnavailable as error:
            if self.operations.calls.addon is None:
                raise
            if not self.refused:
                logger.warning("queue %s: its leases are not renewed, its node does not answer: %s", name, error)
            self.refused.add(step)
            self.due_s.update(dict.fromkeys(STEPS, time.monotonic() + REFUSED_S))
            return
        self.due_s[step] = time.monotonic() + again_s
        if step in self.refused:
            self.refused.discard(step)
            logger.info("queue %s: the broker accepts the lease %s again", name, step)
