"""The transports under test, each on its broker: ours, and Dramatiq's own for Redis, which stands for foreign ones."""

import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import redis
from dramatiq.broker import Broker, MessageProxy
from dramatiq.brokers.redis import MAINTENANCE_SCALE
from dramatiq.brokers.redis import RedisBroker as DramatiqsBroker
from dramatiq.common import dq_name
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage, Middleware

from switchyard.broker.admin.browse import look
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import Transport
from switchyard.broker.keys import LANES, Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import LaneStats
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.transport import RedisTransport
from switchyard.middleware.arguments import knows
from switchyard.middleware.envelope import Envelope
from switchyard.testing.broker import MemoryBroker, MemoryCalls
from switchyard.testing.stores import MemoryDeadLists, MemoryJobRecords, MemoryQuarantine
from switchyard.testing.yard import MemoryTransport
from tests.factories.yards import small_yard
from tests.waiting import wait_for

YARD = small_yard()


@dataclass(frozen=True)
class Promises:
    """Guarantees of a transport: the only differences that the suite allows.

    Args:
        places: Where a moved message may be until its worker acknowledges it, and so how often it may run when the
            worker dies in between. One is exactly once; more is at least once.
        requeues_what_it_read: A letter that died again while it was requeued stays, and its message stays where it is.
        takes_out: A waiting message can be kept from starting by the broker; otherwise only its job's record tells.
        isolates: A message can be moved to where it runs alone.
        lists_parked: Workers find what is parked before it is due; otherwise it is due soon, again and again.
        keeps_unreadable: What is not a message is set aside; otherwise it cannot come into a queue.
        tells_all: Figures say what workers hold, and how long the oldest message has waited.
    """

    places: int
    requeues_what_it_read: bool
    takes_out: bool
    isolates: bool
    lists_parked: bool
    keeps_unreadable: bool = True
    tells_all: bool = True


ATOMIC = Promises(places=1, requeues_what_it_read=True, takes_out=True, isolates=True, lists_parked=True)
PROMISES = {
    "atomic": ATOMIC,
    "portable": Promises(places=2, requeues_what_it_read=False, takes_out=False, isolates=False, lists_parked=False),
    "memory": Promises(
        places=1, requeues_what_it_read=True, takes_out=True, isolates=False, lists_parked=False, keeps_unreadable=False
    ),
}


class Meanwhile(Middleware):
    """Does something once, in the middle of a requeue."""

    def __init__(self) -> None:
        self.act: Callable[[], object] | None = None

    def before_enqueue(self, broker: Broker, message: Message[Any], delay: int | None) -> None:
        act, self.act = self.act, None
        if act is not None:
            act()


class Subject(ABC):
    """A transport with two processes' brokers: one that sends and works, and one that holds messages and may die."""

    def __init__(self, client: redis.Redis, name: str) -> None:
        self.client = client
        self.keys = Keys(f"test-{uuid.uuid4().hex[:8]}")
        self.promises = PROMISES[name]
        self.dead_lists = DeadLists(calls_on(client), self.keys)
        self.quarantine = Quarantine(calls_on(client), self.keys)
        queues, finds = [queue.name for queue in YARD.queues], name == "atomic"
        self.records = JobRecords(calls_on(client), self.keys, queues, finds_waiting=finds)
        self.meanwhile = Meanwhile()
        self.broker, _ = self.build()
        self._holder, self.transport = self.build()
        self._consumers: dict[str, Any] = {}

    @abstractmethod
    def build(self) -> tuple[Broker, Transport]:
        """Return a process's broker with its transport."""

    @abstractmethod
    def scheduled(self, **options: Any) -> set[str]:
        """Return ids of scheduled messages with some options."""

    @abstractmethod
    def spoil(self, raw: bytes) -> None:
        """Let bytes that are no message come into the queue, and be found."""

    @abstractmethod
    def crash(self) -> None:
        """Let the holder die, and what it held be given to others."""

    def send(self, number: int = 0, *, delay_ms: int | None = None) -> str:
        message: Message[Any] = Message("work", "job", (number,), {}, {})
        return self.broker.enqueue(message, delay=delay_ms).message_id

    def hold(self, lane: str = "work") -> MessageProxy:
        """Return the next message of a lane, held by the holder."""
        if lane not in self._consumers:
            self._consumers[lane] = self._holder.consume(lane, prefetch=8, timeout=100)
        return wait_for(lambda: next(self._consumers[lane]))

    def send_and_hold(self, number: int = 0) -> tuple[str, MessageProxy]:
        return self.send(number), self.hold()

    def settle(self, held: MessageProxy) -> None:
        """Acknowledge a message, as its worker does when its task is over."""
        self._consumers[held.queue_name].ack(held)

    def places(self, queue: str = "work") -> int:
        """Return in how many places messages are."""
        stats = self.transport.stats(queue)
        lanes = sum(lane.waiting + lane.scheduled + lane.running for lane in (stats.live, stats.retry))
        return lanes + stats.dead

    def at_rest(self) -> bool:
        return self.places() == self.transport.stats("work").dead

    def close(self) -> None:
        for consumer in self._consumers.values():
            consumer.close()
        self._holder.close()
        self.broker.close()

    def _middleware(self) -> list[Middleware]:
        return [self.meanwhile, Envelope(), CurrentMessage()]


class Atomic(Subject):
    """:class:`RedisTransport` on our broker."""

    def build(self) -> tuple[RedisBroker, Transport]:
        broker = RedisBroker(self.client, self.keys, middleware=self._middleware(), knows=knows)
        for lane in YARD.lanes:
            broker.declare_queue(lane)
        self.family = broker.families["work"]
        return broker, RedisTransport(broker, YARD, self.dead_lists, self.quarantine)

    def hold(self, lane: str = "work") -> MessageProxy:
        if not self._consumers:
            assert isinstance(self._holder, RedisBroker)
            self._holder.become("holder.1")
            for known in LANES:
                self.family.join(f"holder.1/{known}")
        return super().hold(lane)

    def scheduled(self, **options: Any) -> set[str]:
        page = look(self.family, "live", "scheduled")
        return {found.id for found in page.items if found.message and options.items() <= found.message.options.items()}

    def spoil(self, raw: bytes) -> None:
        self.family.enqueue([Entry(f"rubbish-{len(raw)}", raw)])
        consumer = self.broker.consume("work", timeout=1)
        assert next(consumer) is None
        consumer.close()

    def crash(self) -> None:
        for consumer in self._consumers.values():
            consumer.interrupt()
        self._consumers.clear()
        for known in LANES:
            self.family.reclaim(f"holder.1/{known}")


class StockBroker(DramatiqsBroker):
    """Dramatiq's broker, with the one thing that Switchyard asks of a foreign one: how a lane stands."""

    def lane_stats(self, lane: str) -> LaneStats:
        key, delayed = f"{self.namespace}:{lane}", f"{self.namespace}:{dq_name(lane)}"
        waiting, bodies = self.client.llen(key), self.client.hlen(f"{key}.msgs")
        head = self.client.lindex(key, 0)
        body = json.loads(self.client.hget(f"{key}.msgs", head)) if head else None
        age_ms = time.time_ns() // 1_000_000 - body["message_timestamp"] if body else None
        return LaneStats(lane, waiting, self.client.hlen(f"{delayed}.msgs"), bodies - waiting, age_ms)

    def rejected(self, lane: str) -> int:
        """Return how many messages it set aside itself."""
        return int(self.client.zcard(f"{self.namespace}:{lane}.XQ"))


class Portable(Subject):
    """:class:`PortableTransport` on Dramatiq's broker."""

    def build(self) -> tuple[StockBroker, Transport]:
        broker = StockBroker(
            client=self.client, namespace=f"{self.keys.prefix}:foreign", middleware=self._middleware(),
            maintenance_chance=MAINTENANCE_SCALE, heartbeat_timeout=200,
        )  # fmt: skip
        for lane in YARD.lanes:
            broker.declare_queue(lane)
        return broker, PortableTransport(broker, YARD, self.dead_lists, self.quarantine, self.records)

    def scheduled(self, **options: Any) -> set[str]:
        bodies = self.client.hvals(f"{self.keys.prefix}:foreign:{dq_name('work')}.msgs")
        found = [json.loads(body) for body in bodies]
        return {body["message_id"] for body in found if options.items() <= body["options"].items()}

    def spoil(self, raw: bytes) -> None:
        # Each broker treats unreadable bytes in its own way; the quarantine is one place for them.
        self.client.lpush(self.keys.queue("work").quarantine, Quarantine.entry("work", raw, "no message"))

    def crash(self) -> None:
        self._consumers.clear()


class Memory(Subject):
    """The transport of tests without a server. Both processes are one: its broker is in their memory."""

    def build(self) -> tuple[MemoryBroker, Transport]:
        if not hasattr(self, "memory"):
            self.memory = MemoryBroker()
            for entry in self._middleware():
                self.memory.add_middleware(entry)
            for lane in YARD.lanes:
                self.memory.declare_queue(lane)
            self.dead_lists = MemoryDeadLists(self.memory)
            queues = (queue.name for queue in YARD.queues)
            self.records = MemoryJobRecords(MemoryCalls(), self.memory, self.dead_lists, queues)
        return self.memory, MemoryTransport(self.memory, YARD, self.dead_lists, MemoryQuarantine(), self.records)

    def scheduled(self, **options: Any) -> set[str]:
        found = [stored.message() for stored in self.memory.waiting.values() if stored.ready_ms > now_ms()]
        return {message.message_id for message in found if options.items() <= message.options.items()}

    def spoil(self, raw: bytes) -> None:
        raise AssertionError("nothing that is not a message comes into the queue")

    def crash(self) -> None:
        self._consumers.clear()
        self.memory.reclaim()


SUBJECTS: dict[str, type[Subject]] = {"atomic": Atomic, "portable": Portable, "memory": Memory}
