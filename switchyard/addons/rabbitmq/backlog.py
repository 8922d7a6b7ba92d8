"""Poll of the messages that wait on RabbitMQ, and of the lapse suspects among them that are noted in Redis."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from switchyard.addons.rabbitmq.queues import RabbitQueues
from switchyard.addons.rabbitmq.redeliveries import Redeliveries
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys.keys import Keys
from switchyard.broker.keys.queue_keys import Lane
from switchyard.broker.queue.lease_steps import TickBudget, TickExhausted
from switchyard.broker.queue.leases import LaneKey
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.workers.supervisor.backlog import POLL_EVERY_S, BacklogPoll, PoolBacklog

# Returns how many messages are ready, given pairs of a lane and the name of one of its queues.
Count = Callable[[Iterable[tuple[str, str]]], list[int]]

# A server that did not answer is counted again after this: each count may take as long as its answers.
COUNT_AGAIN_S: Final = 10.0

logger = logging.getLogger("switchyard.workers")


class RabbitBacklog(BacklogPoll):
    """The isolated lanes of a pool's queues, counted every 2 s; and while lapse suspects wait, the other lanes too.

    Which of the isolated messages are lapse suspects is noted in Redis, as is who runs such ones.
    """

    def __init__(
        self,
        calls: RedisCalls,
        queues: Mapping[str, QueueOperations],
        lanes: Sequence[LaneKey],
        *,
        keys: Keys,
        count: Count,
    ) -> None:
        super().__init__(calls, queues, lanes)
        self._count, self._server_queues = count, RabbitQueues(keys.prefix)
        self._notes = Redeliveries(calls, keys)

    def poll(self, budget: TickBudget) -> int:
        """Count when a poll is due; return the number of messages that wait for isolated children."""
        if time.monotonic() < self._poll_at_s:
            return 0
        self._poll_at_s = time.monotonic() + POLL_EVERY_S
        isolated = 0
        try:
            for queue in self._isolates:
                self._backlogs[queue] = found = self._read(queue, budget)
                isolated += found.isolated
        except TickExhausted:
            pass
        except BrokerError as error:
            self.forget()
            logger.warning("messages that wait to run alone cannot be counted: %s", error)
            self._poll_at_s = time.monotonic() + COUNT_AGAIN_S
        return isolated

    def _read(self, queue: str, budget: TickBudget) -> PoolBacklog:
        isolated = self._ready(queue, "alone")
        suspects = len(self._notes.suspects(queue, budget_s=budget.left())) if isolated else 0
        if not suspects:
            return PoolBacklog(0, 0, isolated, paused=0)
        works = self._calls.command("HVALS", self._queues[queue].keys.running, budget_s=budget.left())
        quiet_periods = sum(work.partition(b" ")[2].startswith(b"1 ") for work in works)
        live, retry = self._ready(queue, "live"), self._ready(queue, "retry")
        return PoolBacklog(live, retry, isolated, 0, min(suspects, isolated), quiet_periods)

    def _ready(self, queue: str, lane: Lane) -> int:
        name = self._queues[queue].keys.lane_name(lane)
        return sum(self._count([(name, of_level) for of_level in self._server_queues.of(name)]))
