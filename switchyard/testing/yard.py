"""The broker in memory with this project's yard: its queues, its actors, and the middleware of the real broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import dramatiq
from django.test.utils import TestContextDecorator
from dramatiq.broker import Broker, MessageProxy
from dramatiq.message import Message
from dramatiq.middleware import Middleware

from switchyard.broker.held_message import requeued_copy
from switchyard.broker.interface import Arguments, Facilities, attach
from switchyard.broker.keys import Keys
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import NO_RECORD, CancelRecord
from switchyard.broker.shapes import DeadLetter
from switchyard.broker.stores.job_records import RecordResults
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.stores.yard_facts import FactStore
from switchyard.broker.topology import Yard, lane_of_name
from switchyard.broker.worker.acks import AckBarrier
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.middleware.clock_comparison import ClockComparison
from switchyard.middleware.options import refuse_unknown
from switchyard.outbox.sends import CommitSends
from switchyard.send_warnings import SendsInTesting
from switchyard.testing.broker import MemoryBroker, MemoryCalls
from switchyard.testing.running import Clock, Runner, WatchedTask, forget_callbacks, watched_commits
from switchyard.testing.stores import (
    MemoryAlertGroups,
    MemoryBatches,
    MemoryDeadLists,
    MemoryGroupBarriers,
    MemoryJobRecords,
    MemoryQuarantine,
    MemoryRateWindows,
)
from switchyard.wiring import in_order, project_dead_letter

if TYPE_CHECKING:
    from django.test import SimpleTestCase


class MemoryTransport(PortableTransport):
    """The :class:`switchyard.broker.interface.Transport` of :class:`switchyard.testing.broker.MemoryBroker`."""

    finds_waiting = True
    _broker: MemoryBroker

    def _requeue(self, letter: DeadLetter, arguments: Arguments | None) -> bool:
        self._dead.remove(letter.queue, letter.id)
        sent = len(self._broker.sent)
        try:
            self._broker.enqueue(requeued_copy(letter, self._yard.queue_of(letter.queue).name, arguments))
        except BaseException:
            self._dead.add(letter)
            raise
        return len(self._broker.sent) > sent  # its id is known when it died again meanwhile

    def restore(self, letter: DeadLetter) -> bool:
        """Put a dropped dead letter back, unless its message was enqueued again."""
        return not self._broker.knows(letter.id) and self._dead.add(letter)

    def find_message(self, queue: str, message_id: str) -> Message[Any] | None:
        family, stored = self._yard.queue_of(queue).name, self._broker.waiting.get(message_id)
        if stored is not None and lane_of_name(stored.lane)[0] == family:
            return stored.message()
        held = self._broker.held.get(message_id)
        if held is None or lane_of_name(held.queue_name)[0] != family:
            return None
        found: Message[Any] = held.copy()  # of the message inside
        return found

    def knows(self, queue: str, message_id: str) -> bool:
        """Whether a message of this id waits, runs or has ended; not one that is dead."""
        return self._broker.knows(message_id) and message_id not in self._broker.dead

    def cancel(self, queue: str, message_id: str, *, end: CancelRecord = NO_RECORD) -> str:
        if self.find_message(queue, message_id) is None:
            return "unknown"
        if message_id in self._broker.held:
            self._broker.held[message_id].cancel_requested = True
            self._broker.stopping.add(message_id)
            return "asked"
        del self._broker.waiting[message_id]
        self._broker.release_key(message_id)
        self._broker.finished.add(message_id)
        return "cancelled"

    def due_now(self, queue: str, message_id: str) -> str:
        if self.find_message(queue, message_id) is None:
            return "unknown"
        stored, now = self._broker.waiting.get(message_id), self._broker.now_ms()
        if stored is None or stored.ready_ms <= now:
            return "waiting"
        message = stored.message()
        message.options["due_at"] = now
        self._broker.waiting[message_id] = replace(stored, ready_ms=now, body=codec.encode(message, grown=True))
        return "due"

    def cancel_requested(self, held: Message[Any] | MessageProxy) -> bool:
        return bool(getattr(held, "cancel_requested", False))


@dataclass(slots=True)
class MemoryYard:
    """A broker in memory for a real one, whose middleware then is ``listed``; ``stores`` is all that a test fills."""

    broker: MemoryBroker
    runner: Runner
    dead_lists: MemoryDeadLists
    stores: tuple[Any, ...]
    yard: Yard
    real: Broker
    listed: tuple[Middleware, ...]
    known: frozenset[str] = frozenset()

    def clear(self) -> None:
        for store in self.stores:
            store.clear()


RUN = "no job runs by itself in memory, call run_enqueued() first"


def build(real: Broker) -> MemoryYard:
    """Return a broker in memory for the actors of a real one, which is not changed."""
    yard = declared_yard()
    broker = MemoryBroker(limits={queue.name: queue.max_depth for queue in yard.queues if queue.max_depth is not None})
    broker.yard = yard
    dead_lists = MemoryDeadLists(broker)
    calls = MemoryCalls()
    records = MemoryJobRecords(calls, broker, dead_lists, (queue.name for queue in yard.queues))
    windows, alerts, groups = MemoryRateWindows(broker), MemoryAlertGroups(), MemoryGroupBarriers()
    batches = MemoryBatches(broker, records)
    facilities = Facilities(
        yard=yard,
        transport=MemoryTransport(broker, yard, dead_lists, MemoryQuarantine(), records),
        records=records,
        barrier=AckBarrier(records),
        windows=windows,
        alerts=alerts,
        pools=PoolReports(calls, Keys()),
        facts=FactStore(calls, Keys()),
        groups=groups,
        batches=batches,
    )
    broker.barrier = facilities.barrier
    attach(broker, facilities)
    broker.results = RecordResults(records, broker, remedy=RUN)
    broker.middleware.clear()  # what Sentry and its like add to every broker: the real one has it too
    for entry in _middleware(real, in_order(facilities, (project_dead_letter,))):
        broker.add_middleware(entry)
    refuse_unknown(broker)
    for lane in yard.lanes:
        broker.declare_queue(lane)
    stores = (broker, dead_lists, records, windows, alerts, groups, batches, calls)
    return MemoryYard(broker, Runner(broker, batches.settle), dead_lists, stores, yard, real, tuple(real.middleware))


def _middleware(real: Broker, ours: list[Middleware]) -> list[Middleware]:
    """Return the middleware of a real broker, with ours for memory in the places of those for its server.

    A broker of another library has Dramatiq's middleware, which ours replaces.
    """
    if not hasattr(real, "switchyard"):
        return ours
    by_type = {type(entry): entry for entry in ours}
    of_server = (WatchedTask, ClockComparison, SendsInTesting)
    return [by_type.get(type(entry), entry) for entry in real.middleware if not isinstance(entry, of_server)]


_built: dict[int, MemoryYard] = {}
_active: list[in_memory] = []


class in_memory(TestContextDecorator):
    """Replace the broker by one in memory, empty at the start: no server is needed, nothing leaves the process.

    A context manager, and a decorator of test functions and of classes of Django's ``TestCase``. Messages pass the
    checks, the encoding and the middleware of the real broker. They wait until
    :func:`switchyard.testing.run_enqueued` runs them in the test's thread, where they see the rows of the
    test's transaction.

    Args:
        eager: Run each message where it is sent, for debugging: a failure is raised by ``send``. Delayed messages wait.
    """

    def __init__(self, *wrong: Any, eager: bool = False) -> None:
        if wrong:
            raise TypeError(
                "in_memory takes nothing by place: write @in_memory() with brackets, or in_memory(eager=True)"
            )
        super().__init__()
        self._eager = eager

    def decorate_class(self, cls: type[SimpleTestCase]) -> type[SimpleTestCase]:
        """Decorate the tests of a class, and its set-up: what that enqueues is forgotten before the first test."""
        decorated: Any = super().decorate_class(cls)
        set_up = decorated.setUpClass.__func__
        of_class = in_memory(eager=self._eager)

        def set_up_in_memory(cls: type[SimpleTestCase]) -> None:
            of_class.enable()
            cls.addClassCleanup(of_class.disable)
            set_up(cls)
            forget_callbacks()

        decorated.setUpClass = classmethod(set_up_in_memory)
        return cls

    def enable(self) -> MemoryYard:
        self._real = dramatiq.get_broker()
        self.yard = _yard_of(self._real)
        self._actors = dict(self._real.actors)
        for actor in self._actors.values():
            actor.broker = self.yard.broker
        dramatiq.set_broker(self.yard.broker)
        self.clock = Clock()
        self.clock.enter_context(watched_commits(at_once=self._eager))
        self.yard.broker.on_enqueue = self.yard.runner.run_ready if self._eager else lambda: None
        _active.append(self)
        return self.yard

    def disable(self) -> None:
        """Switch back. Actors of modules that were loaded meanwhile stay, others are forgotten."""
        _active.remove(self)
        self.clock.close()
        self.yard.runner.close()
        self.yard.clear()
        dramatiq.set_broker(self._real)
        declared = [actor for name, actor in self._real.actors.items() if name not in self._actors]
        for actor in [*self._actors.values(), *declared]:
            actor.broker = self._real
        for actor in declared:
            del self._real.actors[actor.actor_name]
            if getattr(sys.modules.get(actor.fn.__module__), actor.fn.__name__, None) is actor:
                self._real.declare_actor(actor)


@contextmanager
def out_of_memory() -> Iterator[None]:
    """Switch back to the real broker in this block, whatever has switched before."""
    switches = list(_active)
    for switch in reversed(switches):
        switch.disable()
    try:
        yield
    finally:
        for switch in switches:
            switch.enable()


def active() -> in_memory:
    """Return the switch that is in force.

    Raises:
        RuntimeError: there is none.
    """
    if not _active:
        raise RuntimeError(
            "the broker is not in memory here: decorate the test or its class with @in_memory(), use it as "
            "`with in_memory():`, or with pytest the fixture switchyard_broker or `switchyard_in_memory = true` "
            "in pytest's settings"
        )
    return _active[-1]


def _yard_of(real: Broker) -> MemoryYard:
    """Return the broker in memory for a real one, built once in a process, empty and with all actors."""
    now = (real, tuple(real.middleware), declared_yard())
    built = _built.get(id(real))
    if built is None or (built.real, built.listed, built.yard) != now:
        built = _built[id(real)] = build(real)
    # Without rows: a test that commits nothing has no use for them.
    built.broker.postpone = CommitSends(built.broker, waits=switchyard_settings().sends != "now", keeps_rows=False)
    built.clear()
    built.broker.actors = real.actors
    for name, actor in real.actors.items():
        built.broker.declare_queue(actor.queue_name)
        if name not in built.known:
            built.broker.emit_after("declare_actor", actor)
    built.known = frozenset(real.actors)
    return built
