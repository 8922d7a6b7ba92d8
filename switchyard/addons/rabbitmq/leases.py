"""Leases of a pool's children on RabbitMQ, where the server itself gives a lost child's messages to others.

Beside them the poll of the messages that wait there, and of the lapse suspects among them that are noted in Redis.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from switchyard.addons.rabbitmq.connections import RabbitQueues
from switchyard.addons.rabbitmq.outgoing import Publication
from switchyard.addons.rabbitmq.redeliveries import Redeliveries
from switchyard.broker.errors import BrokerError
from switchyard.broker.keys import Keys, Lane
from switchyard.broker.queue.leases import LaneKey, TickBudget, TickExhausted
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.calls import RedisCalls
from switchyard.workers.shared.child_table import ChildRow, Running
from switchyard.workers.supervisor.leases import POLL_EVERY_S, BacklogPoll, ChildLeases, Leftovers, PoolBacklog

# The server delivers the suspects of a child that ended, and a worker isolates them, within this time.
ISOLATED_WITHIN_S = 1.0
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


class RabbitLeases(ChildLeases):
    """Leases that show children whether the Redis server beside RabbitMQ answers: without it nothing starts.

    A message belongs to the connection that received it. When a child ends, the kernel closes its connections, and the
    server delivers their messages again, 0.25 s later at the earliest. By then the supervisor has noted which of them
    had ended, which ran while the child crashed, and which have crashed nothing. Without such a note, supervisor and
    child ended together: what the child held becomes lapse suspects.
    """

    def __init__(self, *args: Any, keys: Keys, count: Count, **options: Any) -> None:
        super().__init__(*args, **options)
        self.backlog = RabbitBacklog(self._calls, self._queues, self.served.keys, keys=keys, count=count)
        self._redeliveries = Redeliveries(self._calls, keys)
        self._notes: deque[Callable[[], None]] = deque()

    @property
    def settled(self) -> bool:
        return super().settled and not self._notes

    def settle(self, leftovers: Leftovers, suspects: Sequence[Running] = (), cause: str = "") -> None:
        """Note which messages a child had finished, and which crashed it, for the worker that gets them next."""
        counts = not cause.startswith("limit")
        ended = [Publication(done.job_id, b"%d" % done.token) for done in leftovers.finished]
        self._notes.append(partial(self._redeliveries.note_ends, ended))
        for ran in suspects:
            self._notes.append(partial(self._redeliveries.note_crash, ran.job_id, cause, counts=counts))
        blamed = {Publication(ran.job_id, b"%d" % ran.token).mark for ran in suspects}
        self._notes.append(
            partial(self._redeliveries.note_returns, [mark for mark in leftovers.held if mark not in blamed])
        )
        self._write_notes()
        super().settle(Leftovers(leftovers.child, leftovers.served, cancelled=leftovers.cancelled))
        self._isolated_waiting += sum(leftovers.served.keys[ran.lane][1] == "alone" for ran in suspects)
        if suspects:
            self.backlog.poll_within(ISOLATED_WITHIN_S)

    def tick(self, rows: Mapping[int, ChildRow]) -> list[int]:
        lost = super().tick(rows)
        if self._notes and not self.keeper.away:
            self._write_notes()
        return lost

    def _write_notes(self) -> None:
        try:
            while self._notes:
                self._notes[0]()
                self._notes.popleft()
        except BrokerError as error:
            logger.warning("%d messages of children that ended are noted later: %s", len(self._notes), error)
