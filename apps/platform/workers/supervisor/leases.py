"""The leases of a pool's children: their supervisor holds them, and decides what becomes of what a child leaves."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dramatiq.broker import Broker

from apps.platform.workers.shared.child_table import ChildRow, Finished, Running
from broker.clock import now_ms
from broker.errors import BrokerError, BrokerUnavailable
from broker.keys.queue_keys import Lane
from broker.queue.lease_steps import ANSWER_S
from broker.queue.leases import LaneKey, LaneLeftovers, LeaseKeeper
from broker.queue.operations import QueueOperations
from broker.queue.results import Lease, Reclaimed
from broker.redis.calls import RedisCalls
from broker.redis.connections import connect
from broker.redis_broker import RedisBroker
from broker.stores.job_records import JobRecords
from broker.topology import Pool, Yard

logger = logging.getLogger("switchyard.workers")

LOOK_FOR_ALONE_S = 2.0
# A scheduled one that is due so soon is worth a child that waits for it.
SOON_MS = 1_000


@dataclass(frozen=True, slots=True)
class Served:
    """The lanes that a child serves: their names, and their keys in the same order."""

    names: tuple[str, ...]
    keys: tuple[LaneKey, ...]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What a child that ended left: what its slots held, what it had worked off and is written down.

    Args:
        cancelled: Held by its slots as well: tasks that were asked to stop and were not worked off.
    """

    child: str
    served: Served
    running: list[Running] = field(default_factory=list)
    finished: list[Finished] = field(default_factory=list)
    cancelled: list[Running] = field(default_factory=list)


class ChildLeases:
    """Names children, gives them leases before they start, and takes back what they leave.

    What a child ran when it crashed is put where it runs alone; see :class:`middleware.crashes.Crashes`. With a single
    slot it ran alone already, and goes back with the rest.

    Args:
        broker: This yard's; its keys are used, over connections of our own.
        url: Address of its server.
        alone: Told how many messages wait to be run alone by a child of this pool.
    """

    def __init__(self, pool: Pool, yard: Yard, broker: Broker, url: str, *, alone: Callable[[int], None]) -> None:
        if not isinstance(broker, RedisBroker):
            raise TypeError(f"pools run on RedisBroker, not on {type(broker).__name__}; use manage.py rundramatiq")
        lanes = [(lane, *broker.lane(lane)) for lane in yard.served_by(pool)]
        self.served = Served(
            tuple(lane for lane, _, _ in lanes), tuple((family.keys.queue, kind) for _, family, kind in lanes)
        )
        queues = dict.fromkeys(queue for queue, _ in self.served.keys)
        self.alone = Served(
            tuple(yard.queue_of(queue).alone_lane for queue in queues), tuple((queue, "alone") for queue in queues)
        )
        client = connect(url, profile="quick")
        self._wire = RedisCalls(client)
        self._records = JobRecords(self._wire, broker.keys)
        self._families = {queue: QueueOperations(self._wire, broker.families[queue].keys) for queue in queues}
        # Another pool may serve a queue's retries; it does not look after what runs alone as well.
        self._looks_after = [queue for queue, kind in self.served.keys if kind == "live"]
        self._tell_alone = alone
        self._look_at_s = 0.0
        self.waiting = False
        self._keeper = LeaseKeeper(self._families, [*self.served.keys, *self.alone.keys], reclaimed=self._reclaimed)
        self._name = f"{pool.name}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._own = f"{self._name}.suspects"
        self._isolates = pool.slots > 1
        if self._isolates:
            self._keeper.adopt(self._own)
        self._suspects: list[tuple[str, Lease]] = []
        self._generations: dict[int, int] = {}
        self._children: dict[int, tuple[str, Served]] = {}
        self._lost: set[str] = set()  # noticed when another child was given its leases

    def adopt(self, place: int, row: ChildRow, served: Served) -> str:
        """Name the child that is about to start in a place, and give it leases if the server answers within a second.

        The row says to the child until when it has them; :meth:`tick` gives them later, and prolongs them.
        """
        generation = self._generations[place] = self._generations.get(place, 0) + 1
        child = f"{self._name}.{place}.{generation}"
        if place in self._children:  # named before, and could not be started
            self._keeper.forget(self._children[place][0])
        self._children[place] = (child, served)
        self._keeper.adopt(child, served.keys)
        self._lost.update(self._keeper.tick())
        self._tell(place, row)
        return child

    def tick(self, rows: Mapping[int, ChildRow]) -> list[int]:
        """Do what is due, for a second or so; return the places of children that lost a lease and must end.

        Args:
            rows: Place -> row.
        """
        lost, self._lost = self._lost.union(self._keeper.tick()), set()
        if self._own in lost:
            self._keeper.forget(self._own)
            self._generations[0] = self._generations.get(0, 0) + 1
            self._own = f"{self._name}.suspects.{self._generations[0]}"
            self._keeper.adopt(self._own)
        if self._keeper.away:
            self.waiting = False  # nobody knows, and a pool that was restarted could not take it either
        else:
            self._isolate()
            self._look()
        for place in self._children:
            self._tell(place, rows[place])
        return [place for place, (child, _) in self._children.items() if child in lost]

    def seconds_to_next(self) -> float:
        """Return in how many seconds something is due."""
        return 0.0 if self._lost else self._keeper.seconds_to_next()

    def ended(self, place: int, row: ChildRow) -> Leftovers:
        """Return what the child of a place left, before its row is cleared."""
        child, served = self._children.pop(place)
        return Leftovers(child, served, row.running(), row.finished())

    def asked_to_stop(self, running: Mapping[int, Sequence[Running]]) -> set[tuple[int, Running]]:
        """Return those of the messages that children run, by place, which somebody cancelled.

        Raises:
            BrokerUnavailable: the server did not answer.
        """
        by_queue: dict[str, list[tuple[int, Running]]] = {}
        for place, messages in running.items():
            keys = self._children[place][1].keys
            for ran in messages:
                by_queue.setdefault(keys[ran.lane][0], []).append((place, ran))
        found: set[tuple[int, Running]] = set()
        for queue, messages_of in by_queue.items():
            ids = [_text(ran.id) for _, ran in messages_of]
            asked = self._families[queue].cancel_requested(ids, budget_s=ANSWER_S)
            found.update(key for key, id_ in zip(messages_of, ids, strict=True) if id_ in asked)
        return found

    def settle(self, estate: Leftovers, guilty: Sequence[Running] = (), cause: str = "") -> None:
        """Take back an estate: what was worked off is acknowledged, the rest goes to the heads of its lanes.

        Args:
            guilty: Those of its running messages that ended it, or may have.
            cause: What ended it, as :meth:`broker.queue.operations.QueueOperations.reclaim` wants it.
        """
        self._record_cancelled(estate)
        left = {
            key: LaneLeftovers(
                finished=[(done.id, b"%d" % done.token) for done in estate.finished if done.lane == lane],
                running=[_text(ran.id) for ran in guilty if ran.lane == lane],
                cause=cause,
                heir=self._own if self._isolates and key[1] != "alone" else "",
            )
            for lane, key in enumerate(estate.served.keys)
        }
        self._keeper.reclaim(estate.child, left)
        if not self._keeper.away:
            self._isolate()
        back = [ran for ran in guilty if estate.served.keys[ran.lane][1] == "alone"]
        if back:
            self._tell_alone(len(back))

    @property
    def settled(self) -> bool:
        """Whether all estates are taken back."""
        return self._keeper.settled and not self._suspects

    @property
    def away(self) -> bool:
        """Whether the server did not answer the last time."""
        return self._keeper.away

    @property
    def silent(self) -> bool:
        """Whether the server did not answer twice in a row."""
        return self._keeper.silent

    def hurry(self) -> None:
        """Find out at the next tick, and soon again, whether the server answers."""
        self._keeper.poll_now()

    def close(self) -> None:
        """Give up the own leases, and close the connections."""
        if self._isolates and not self._keeper.silent:
            self._keeper.forget(self._own)
        self._wire.close()

    def shed(self) -> None:
        """Close, in a forked child, the connections it inherited."""
        self._wire.close()

    def _record_cancelled(self, estate: Leftovers) -> None:
        """Record at once what ends cancelled with its child; otherwise who fetches it next does, and drops it."""
        if self._keeper.away:
            return
        try:
            for ran in estate.cancelled:
                self._records.cancel(_text(ran.id), place="cancelled")
        except BrokerError as error:
            logger.warning("jobs that were killed for being cancelled are recorded later: %s", error)

    def _tell(self, place: int, row: ChildRow) -> None:
        row.lease(self._keeper.leased_until_s(self._children[place][0]))

    def _reclaimed(self, child: str, key: LaneKey, answer: Reclaimed) -> None:
        # Those that the keeper did not get went back with the rest; who fetches them sets them apart.
        self._suspects += [(key[0], suspect.lease) for suspect in answer.suspects if suspect.lease is not None]

    def _isolate(self) -> None:
        """Put suspects where they run alone; what the server does not answer for now is done with the next tick."""
        count = len(self._suspects)
        try:
            while self._suspects:
                queue, lease = self._suspects[0]
                self._families[queue].isolate(lease, budget_s=ANSWER_S)
                self._suspects.pop(0)
        except BrokerError as error:
            logger.warning("%d messages that may be suspect are set apart later: %s", len(self._suspects), error)
        if count > len(self._suspects):
            self._tell_alone(count - len(self._suspects))

    def _look(self) -> None:
        """Notice whether messages wait, and what others put where it runs alone.

        Those are a supervisor that is gone, or a worker that fetched a marked message.
        """
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + LOOK_FOR_ALONE_S
        try:
            self.waiting = any(self._waits(queue, lane) for queue, lane in self.served.keys)
            for queue in self._looks_after:
                keys = self._families[queue].keys
                waiting = self._wire.command("EXISTS", *keys.waiting("alone"), budget_s=ANSWER_S)
                soon = self._wire.command("ZCOUNT", keys.due("alone"), "-inf", now_ms() + SOON_MS, budget_s=ANSWER_S)
                if waiting or soon:
                    self._tell_alone(1)
        except BrokerUnavailable:
            self.waiting = False  # whoever holds the leases says so
        except BrokerError as error:
            self.waiting = False
            logger.warning("what waits cannot be looked at now: %s", error)

    def _waits(self, queue: str, lane: Lane) -> bool:
        keys = self._families[queue].keys
        waiting = self._wire.command("EXISTS", *keys.waiting(lane), budget_s=ANSWER_S)
        return bool(waiting) and not self._wire.command("EXISTS", keys.paused, budget_s=ANSWER_S)


def _text(id_: bytes) -> str:
    return str(id_, "ascii", "replace")
