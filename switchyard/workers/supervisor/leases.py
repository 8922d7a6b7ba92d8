"""Leases of a pool's children: their supervisor renews them, and settles the messages of a child that ended.

It polls the messages that wait in the lanes as well, for the pool's health and for the start of isolated children.
"""

import logging
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from dramatiq.broker import Broker

from switchyard.broker.errors import BrokerError, BrokerUnavailable
from switchyard.broker.queue.leases import (
    ANSWER_S,
    REPORT_S,
    TICK_S,
    LaneKey,
    LaneLeftovers,
    LeaseKeeper,
    TickBudget,
    TickExhausted,
)
from switchyard.broker.queue.operations import Lease, QueueOperations, Reclaimed
from switchyard.broker.redis.calls import RedisCalls, Word, calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Pool, Yard
from switchyard.broker.yard_broker import YardBroker
from switchyard.workers.shared.child_table import ChildRow, Running

LONG_S = 1.0  # a message that runs for longer than this is reported, in case it ends the supervisor as well
ALL_HELD = 500  # oldest leases that may run: all, unless it is known that some are only prefetched
POLL_EVERY_S = 2.0
SUSPECTS_A_PERIOD = 8  # lapse suspects that one quiet period is to run, before another supervisor opens one as well

logger = logging.getLogger("switchyard.workers")


@dataclass(frozen=True, slots=True)
class Served:
    """The lanes that a child serves: their names, and their keys in the same order."""

    names: tuple[str, ...]
    keys: tuple[LaneKey, ...]


@dataclass(frozen=True, slots=True)
class ChildWork:
    """A child that has leases; the others are quiet while one runs ``alone``."""

    child: str
    served: Served
    slots: int
    alone: bool


@dataclass(frozen=True, slots=True)
class Leftovers:
    """Messages that a child left when it ended."""

    child: str
    served: Served
    running: list[Running] = field(default_factory=list)  # in its slots
    finished: list[Running] = field(default_factory=list)  # and recorded; their acknowledgement is not confirmed
    cancelled: list[Running] = field(default_factory=list)  # in its slots, and their jobs were cancelled
    held: list[int] = field(default_factory=list)  # marks of what it held, where its broker writes them
    unwritten: list[Running] = field(default_factory=list)  # that ended last, not recorded: they run again


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


class ChildLeases:
    """Leases of the children of a pool: acquired before their start, renewed, and reclaimed after their end.

    Messages that ran in a child when it crashed run again one at a time, see
    :class:`switchyard.middleware.crashes.Crashes`; in a pool with a single slot they ran alone already.

    Args:
        served, isolated: Lanes of a child, and of an isolated one: one for each queue.
        queues: Queue -> its operations, on ``calls``: connections that nothing else uses.
    """

    def __init__(
        self, pool: Pool, served: Served, isolated: Served,
        queues: Mapping[str, QueueOperations], calls: RedisCalls, records: JobRecords,
    ) -> None:  # fmt: skip
        self.served, self.isolated = served, isolated
        self._queues, self._calls, self._records = queues, calls, records
        self.keeper = LeaseKeeper(queues, [*served.keys, *isolated.keys], reclaimed=self._reclaimed)
        self._host = socket.gethostname()
        self._name = f"{pool.name}.{self._host}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._children: dict[int, ChildWork] = {}
        self._report_at_s = 0.0
        self._seen: dict[int, tuple[int, bool]] = {}  # messages done, and whether all slots were busy
        self._incarnations: dict[int, int] = {}
        self._lost = set[str]()  # noticed when another child was given its leases
        # The heir is an owner of this process: it gets suspects until they are isolated.
        self._isolates = pool.slots > 1
        self._heirs, self._heir = 0, ""
        self._suspects: list[tuple[str, Lease]] = []
        if self._isolates:
            self._adopt_heir()
        self._isolated_waiting = 0
        self.backlog = BacklogPoll(calls, queues, served.keys)

    @property
    def settled(self) -> bool:
        """Whether all messages of children that ended are reclaimed."""
        return self.keeper.settled and not self._suspects

    def adopt(self, index: int, row: ChildRow, served: Served, *, slots: int = 1, alone: bool = False) -> str:
        """Return a name for the child that is about to start, with its leases if the server answers within a second."""
        incarnation = self._incarnations[index] = self._incarnations.get(index, 0) + 1
        child = f"{self._name}.{index}.{incarnation}"
        if index in self._children:  # named before, and could not be started
            self.keeper.reclaim(self._children[index].child)
        adopted = self._children[index] = ChildWork(child, served, slots, alone)
        self.keeper.adopt(child, served.keys, work=self._work(adopted, row))
        self._lost.update(self.keeper.tick())
        row.lease(self.keeper.leased_until_s(child))
        return child

    def seconds_to_next(self) -> float:
        """Return the seconds until something is due."""
        if self._lost:
            return 0.0
        until_report_s = max(self._report_at_s - time.monotonic(), 0.0) if self._children else REPORT_S
        return min(self.keeper.seconds_to_next(), until_report_s)

    def tick(self, rows: Mapping[int, ChildRow]) -> list[int]:
        """Renew, isolate suspects and poll the backlog, for about 1 s; return the children that lost a lease."""
        budget = TickBudget(time.monotonic() + TICK_S)
        self._report(rows)
        lost, self._lost = self._lost.union(self.keeper.tick()), set()
        if self._heir in lost:
            self.keeper.reclaim(self._heir)
            self._adopt_heir()
        if self.keeper.away:
            self.backlog.forget()
        else:
            self._isolate(budget)
            self._isolated_waiting = max(self._isolated_waiting, self.backlog.poll(budget))
        for index, adopted in self._children.items():
            rows[index].lease(self.keeper.leased_until_s(adopted.child))
        return [index for index, adopted in self._children.items() if adopted.child in lost]

    def take_isolated_waiting(self) -> int:
        """Return and reset the number of messages, found since the last call, that wait to run isolated."""
        waiting, self._isolated_waiting = self._isolated_waiting, 0
        return waiting

    def leftovers(self, index: int, row: ChildRow) -> Leftovers:
        """Return the messages that the child of an index left, before its row is cleared."""
        adopted = self._children.pop(index)
        running, held = row.running(), row.held_marks.read()
        # A message in a child's only slot is the nearer cause of its end: the one before is not blamed.
        unwritten = [] if running and adopted.slots == 1 else row.ended_unwritten(adopted.slots)
        return Leftovers(adopted.child, adopted.served, running, row.finished(), [], held, unwritten)

    def cancelled(self, running: Mapping[int, Sequence[Running]]) -> set[tuple[int, Running]]:
        """Return those of the running messages, by index, whose jobs were cancelled."""
        by_queue: dict[str, list[tuple[int, Running]]] = {}
        for index, messages in running.items():
            keys = self._children[index].served.keys
            for ran in messages:
                by_queue.setdefault(keys[ran.lane][0], []).append((index, ran))
        budget = TickBudget(time.monotonic() + TICK_S)
        found: set[tuple[int, Running]] = set()
        for queue, messages_of in by_queue.items():
            ids = [ran.job_id for _, ran in messages_of]
            try:
                asked = self._queues[queue].cancel_requested(ids, budget_s=budget.left())
            except TickExhausted:
                break
            found.update(key for key, id_ in zip(messages_of, ids, strict=True) if id_ in asked)
        return found

    def settle(self, leftovers: Leftovers, suspects: Sequence[Running] = (), cause: str = "") -> None:
        """Acknowledge what a child had finished, and return the rest to its lanes: suspects with a cause of its end."""
        self._record_cancelled(leftovers)
        by_lane = {
            key: LaneLeftovers(
                finished=[(done.id, b"%d" % done.token) for done in leftovers.finished if done.lane == lane],
                running=[ran.job_id for ran in suspects if ran.lane == lane],
                cause=cause,
                heir=self._heir if self._isolates and key[1] != "alone" else "",
            )
            for lane, key in enumerate(leftovers.served.keys)
        }
        self.keeper.reclaim(leftovers.child, by_lane)
        if not self.keeper.away:
            self._isolate(TickBudget(time.monotonic() + TICK_S))
        self._isolated_waiting += sum(leftovers.served.keys[ran.lane][1] == "alone" for ran in suspects)

    def close(self) -> None:
        """Release the heir's leases, and close the connections."""
        if self._isolates and not self.keeper.silent:
            self.keeper.reclaim(self._heir)
        self.close_inherited()

    def close_inherited(self) -> None:
        self._calls.close()

    def _report(self, rows: Mapping[int, ChildRow]) -> None:
        """Report what the children run, once a second."""
        if time.monotonic() < self._report_at_s:
            return
        self._report_at_s = time.monotonic() + REPORT_S
        for index, adopted in self._children.items():
            state = rows[index].read()
            full = state.busy >= adopted.slots
            done_before, was_full = self._seen.get(index, (0, False))
            self._seen[index] = state.done, full
            done = state.done - done_before
            # A free slot takes the next message at once: some are only prefetched while all are busy. Among the oldest
            # leases are those of finished messages whose acknowledgement is on its way: at most all of the last second.
            stocks = full and was_full and 0 <= done < adopted.slots
            work = self._work(adopted, rows[index], adopted.slots + done if stocks else ALL_HELD)
            began_ns = time.monotonic_ns() - int(LONG_S * 1e9)
            lines: dict[int, str] = {}
            for ran in rows[index].running():
                if ran.start_ns <= began_ns:
                    lines[ran.lane] = f"{lines.get(ran.lane, '')}\n{ran.job_id}"
            self.keeper.report(
                adopted.child, {key: work + lines.get(lane, "") for lane, key in enumerate(adopted.served.keys)}
            )

    def _work(self, adopted: ChildWork, row: ChildRow, oldest: int = ALL_HELD) -> str:
        """Return the first line of a child's report; the messages that a quiet child has fetched do not run."""
        if adopted.alone:
            return f"1 1 {self._host}"
        return f"{0 if row.quiet else oldest} 0 {self._host}"

    def _adopt_heir(self) -> None:
        self._heir = f"{self._name}.suspects.{self._heirs}" if self._heirs else f"{self._name}.suspects"
        self._heirs += 1
        self.keeper.adopt(self._heir)

    def _record_cancelled(self, leftovers: Leftovers) -> None:
        """Record jobs that ended cancelled with their child; otherwise the next worker to fetch one does so."""
        if self.keeper.away:
            return
        deadline_s = time.monotonic() + TICK_S
        try:
            for ran in leftovers.cancelled:
                if time.monotonic() < deadline_s:
                    self._records.cancel(ran.job_id, place="cancelled")
        except BrokerError as error:
            logger.warning("jobs that were cancelled and killed are recorded later: %s", error)

    def _reclaimed(self, child: str, key: LaneKey, answer: Reclaimed) -> None:
        # Suspects that the heir did not get were returned with the rest; the worker that fetches one isolates it.
        self._suspects += [(key[0], suspect.lease) for suspect in answer.suspects if suspect.lease is not None]

    def _isolate(self, budget: TickBudget) -> None:
        """Move suspects into the lanes of isolated children; without time left, the next tick moves the rest."""
        count = len(self._suspects)
        try:
            while self._suspects:
                queue, lease = self._suspects[0]
                self._queues[queue].isolate(lease, budget_s=budget.left())
                self._suspects.pop(0)
        except TickExhausted:
            pass
        except BrokerError as error:
            logger.warning("%d suspects are isolated later: %s", len(self._suspects), error)
            self._suspects.append(self._suspects.pop(0))  # the server may refuse only this message
        self._isolated_waiting += count - len(self._suspects)


def connect_leases(pool: Pool, yard: Yard, broker: Broker, url: str) -> ChildLeases:
    """Return the leases of a pool's children, over connections of their own; ``TypeError`` for a foreign broker."""
    if not isinstance(broker, YardBroker):
        raise TypeError(f"pools run on no {type(broker).__name__}; use manage.py rundramatiq")
    lanes = [(name, *broker.lane(name)) for name in yard.served_by(pool)]
    served = Served(tuple(name for name, _, _ in lanes), tuple((family.keys.queue, lane) for _, family, lane in lanes))
    names = dict.fromkeys(queue for queue, _ in served.keys)
    isolated = Served(
        tuple(yard.queue_of(queue).alone_lane for queue in names), tuple((queue, "alone") for queue in names)
    )
    calls = calls_on(connect(url, profile="quick"), budget_s=TICK_S)
    queues = {queue: QueueOperations(calls, broker.families[queue].keys) for queue in names}
    records = JobRecords(calls, broker.keys, broker.families)
    make = broker.make_leases or ChildLeases
    return cast(ChildLeases, make(pool, served, isolated, queues, calls, records))
