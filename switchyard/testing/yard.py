"""The broker in memory with this project's yard: its queues, its actors, and the middleware of the real broker."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from dramatiq.actor import Actor
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.errors import no_dead_letter
from switchyard.broker.held_message import requeued_copy
from switchyard.broker.interface import Arguments, Facilities, attach
from switchyard.broker.keys.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue import codec
from switchyard.broker.queue.results import NO_RECORD, CancelRecord
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.kept_results import RecordResults
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.topology import Yard, lane_of_name
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.conf import declared_yard
from switchyard.middleware.clock_comparison import ClockComparison
from switchyard.middleware.options import refuse_unknown
from switchyard.send_warnings import SendsInTesting
from switchyard.testing.broker import MemoryBroker
from switchyard.testing.calls import MemoryCalls
from switchyard.testing.running import Runner, WatchedTask
from switchyard.testing.stores import (
    MemoryAlertGroups,
    MemoryDeadLists,
    MemoryGroupBarriers,
    MemoryJobRecords,
    MemoryQuarantine,
    MemoryRateWindows,
)
from switchyard.wiring import in_order, project_dead_letter


class MemoryTransport(PortableTransport):
    """The :class:`switchyard.broker.interface.Transport` of :class:`switchyard.testing.broker.MemoryBroker`."""

    finds_waiting = True

    def __init__(
        self, broker: MemoryBroker, yard: Yard, dead_lists: MemoryDeadLists, records: MemoryJobRecords
    ) -> None:
        super().__init__(broker, yard, dead_lists, MemoryQuarantine(), records)
        self._memory = broker

    def requeue(self, queue: str, message_id: str, *, arguments: Arguments | None = None) -> str:
        """Enqueue a dead letter's message anew, attempts forgotten."""
        letter = self._dead.get(queue, message_id)
        if letter is None:
            raise no_dead_letter(queue, message_id)
        self._dead.remove(queue, message_id)
        sent = len(self._memory.sent)
        try:
            self._memory.enqueue(requeued_copy(letter, self._yard.queue_of(queue).name, arguments))
        except BaseException:
            self._dead.add(letter)
            raise
        if len(self._memory.sent) == sent:  # it died again meanwhile, so that its id is known
            raise no_dead_letter(queue, message_id)
        return letter.id

    def restore(self, letter: DeadLetter) -> bool:
        """Put a dropped dead letter back, unless its message was enqueued again."""
        return not self._memory.knows(letter.id) and self._dead.add(letter)

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        """Return a message that waits, is scheduled or runs."""
        family, stored = self._yard.queue_of(queue).name, self._memory.waiting.get(message_id)
        if stored is not None and lane_of_name(stored.lane)[0] == family:
            return stored.message()
        held = self._memory.held.get(message_id)
        if held is None or lane_of_name(held.queue_name)[0] != family:
            return None
        found: Message[Any] = held.copy()  # of the message inside
        return found

    def knows(self, queue: str, message_id: str) -> bool:
        """Whether a message of this id waits, runs or has ended; not one that is dead."""
        return self._memory.knows(message_id) and message_id not in self._memory.dead

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        """Remove a message that waits, request cancellation of one that runs."""
        if self.find_message(queue, message_id) is None:
            return "unknown"
        if message_id in self._memory.held:
            self._memory.held[message_id].cancel_requested = True
            self._memory.stopping.add(message_id)
            return "asked"
        del self._memory.waiting[message_id]
        self._memory.release_key(message_id)
        self._memory.finished.add(message_id)
        return "cancelled"

    def due_now(self, queue: str, message_id: str) -> str:
        """Let a scheduled message start at once."""
        if self.find_message(queue, message_id) is None:
            return "unknown"
        stored, now = self._memory.waiting.get(message_id), self._memory.now_ms()
        if stored is None or stored.ready_ms <= now:
            return "waiting"
        message = stored.message()
        message.options["due_at"] = now
        self._memory.waiting[message_id] = replace(stored, ready_ms=now, body=codec.encode(message, grown=True))
        return "due"

    def cancel_requested(self, held: Message[Any] | MessageProxy) -> bool:
        """Whether the cancellation of a message that runs was requested."""
        return bool(getattr(held, "cancel_requested", False))


class Store(Protocol):
    """Leftovers of a test."""

    def clear(self) -> None: ...


@dataclass(frozen=True, slots=True)
class MemoryYard:
    """A broker in memory, with all that belongs to it."""

    broker: MemoryBroker
    runner: Runner
    dead_lists: MemoryDeadLists
    stores: tuple[Store, ...]
    yard: Yard

    def clear(self) -> None:
        """Forget messages, records, dead letters, rate windows, alerts, groups and counters."""
        for store in self.stores:
            store.clear()

    def adopt(self, actors: dict[str, Actor[Any, Any]], *, known: frozenset[str]) -> None:
        """Take over the actors of the real broker; middleware is told of those that are new."""
        self.broker.actors = actors
        for name, actor in actors.items():
            self.broker.declare_queue(actor.queue_name)
            if name not in known:
                self.broker.emit_after("declare_actor", actor)


RUN = "no job runs by itself in memory, call run_enqueued() first"


def build(real: Broker) -> MemoryYard:
    """Return a broker in memory for the actors of a real one, which is not changed."""
    yard = declared_yard()
    broker = MemoryBroker(limits={queue.name: queue.max_depth for queue in yard.queues if queue.max_depth is not None})
    dead_lists = MemoryDeadLists(broker)
    calls = MemoryCalls()
    records = MemoryJobRecords(calls, broker, dead_lists, (queue.name for queue in yard.queues))
    windows, alerts, groups = MemoryRateWindows(broker), MemoryAlertGroups(), MemoryGroupBarriers()
    facilities = Facilities(
        yard=yard,
        transport=MemoryTransport(broker, yard, dead_lists, records),
        records=records,
        barrier=AckBarrier(records),
        windows=windows,
        alerts=alerts,
        pools=PoolReports(calls, Keys()),
        groups=groups,
    )
    broker.barrier = facilities.barrier
    attach(broker, facilities)
    broker.results = RecordResults(records, broker, remedy=RUN)
    for entry in _middleware(real, in_order(facilities, (project_dead_letter,))):
        broker.add_middleware(entry)
    refuse_unknown(broker)
    for lane in yard.lanes:
        broker.declare_queue(lane)
    stores = (broker, dead_lists, records, windows, alerts, groups, calls)
    return MemoryYard(broker, Runner(broker), dead_lists, stores, yard)


def _middleware(real: Broker, ours: list[Middleware]) -> list[Middleware]:
    """Return the middleware of a real broker, with ours for memory in the places of those for its server.

    A broker of another library has Dramatiq's middleware, which ours replaces.
    """
    if not hasattr(real, "switchyard"):
        return ours
    by_type = {type(entry): entry for entry in ours}
    of_server = (WatchedTask, ClockComparison, SendsInTesting)
    return [by_type.get(type(entry), entry) for entry in real.middleware if not isinstance(entry, of_server)]
