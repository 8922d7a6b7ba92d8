"""Poll of the messages that wait in the lanes of a pool, for its health and for the start of isolated children."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.queue.leases import ANSWER_S, LaneKey, TickBudget, TickExhausted
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls, Word
from switchyard.broker.redis.scripts import script

logger = logging.getLogger("switchyard.workers")

POLL_EVERY_S = 2.0
SUSPECTS_A_PERIOD = 8  # lapse suspects that one quiet period is to run, before another supervisor opens one as well


@dataclass(frozen=True, slots=True)
class PoolBacklog:
    """Numbers of messages that wait in the lanes of a queue."""

    live: int
    retry: int
    isolated: int  # for isolated children, also those due within a second: a child may start before them
    paused: int  # 1 while no message of the queue can be fetched
    suspects: int = 0  # those of the next isolated messages that are lapse suspects
    quiet_periods: int = 0  # supervisors that run such suspects now, or are about to

    def waits(self, lane: str) -> bool:
        """Return whether a lane has messages that could be fetched now."""
        return not self.paused and bool(self.live if lane == "live" else self.retry)


class BacklogPoll:
    """The backlogs of a pool's queues and lanes, read every 2 s in one pipeline."""

    def __init__(self, calls: RedisCalls, queues: Mapping[str, QueueOperations], lanes: Sequence[LaneKey]) -> None:
        self._calls, self._queues, self._lanes = calls, queues, lanes
        # Another pool may serve a queue's retries; the one with its live lane starts isolated children.
        self._isolates = {queue for queue, lane in lanes if lane == "live"}
        self._order = deque(queues)  # a poll begins with those that the one before did not read
        self._poll_at_s = 0.0
        self._backlogs: dict[str, PoolBacklog] = {}

    @property
    def waiting(self) -> bool:
        """Whether messages wait that a child could fetch now; ``False`` while that is unknown."""
        return any(self._backlogs[queue].waits(lane) for queue, lane in self._lanes if queue in self._backlogs)

    @property
    def suspects_wait(self) -> bool:
        """Whether lapse suspects wait to run alone, as far as it is known."""
        return any(found.suspects and not found.paused for found in self._isolating())

    @property
    def wants_quiet_period(self) -> bool:
        """Whether more lapse suspects wait than other supervisors are about to run."""
        return any(
            found.suspects > found.quiet_periods * SUSPECTS_A_PERIOD and not found.paused for found in self._isolating()
        )

    def forget(self) -> None:
        """Discard the backlogs that were read: the server is unavailable, or much has changed. The next poll is due."""
        self._backlogs.clear()
        self._poll_at_s = 0.0

    def poll_within(self, seconds: float) -> None:
        """Have a poll due in so many seconds at the latest."""
        self._poll_at_s = min(self._poll_at_s, time.monotonic() + seconds)

    def poll(self, budget: TickBudget) -> int:
        """Read the backlogs when a poll is due; return the number of messages that wait for isolated children."""
        if time.monotonic() < self._poll_at_s:
            return 0
        self._poll_at_s = time.monotonic() + POLL_EVERY_S
        isolated = 0
        try:
            for answer in self._calls.stream(script("backlog"), self._calls_of(budget), budget_s=ANSWER_S):
                queue = self._order[0]
                self._order.rotate(-1)
                self._backlogs[queue] = PoolBacklog(*answer)
                if queue in self._isolates:
                    isolated += self._backlogs[queue].isolated
        except BrokerUnavailable:
            self.forget()  # the lease keeper logs it
        except Exception as error:  # noqa: BLE001  whatever a key may hold, the supervisor goes on
            logger.warning("queue %s: the broker refuses to count its backlog: %r", self._order[0], error)
            self._backlogs.pop(self._order[0], None)
            self._order.rotate(-1)
        return isolated

    def _isolating(self) -> list[PoolBacklog]:
        return [found for queue, found in self._backlogs.items() if queue in self._isolates]

    def _calls_of(self, budget: TickBudget) -> Iterator[tuple[list[str], list[Word]]]:
        for queue in list(self._order):
            try:
                budget.left()
            except TickExhausted:
                return
            yield self._queues[queue].backlog_call()
