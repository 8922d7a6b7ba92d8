"""The broker in memory with this project's yard: its queues, its actors, and the middleware of the real broker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dramatiq.actor import Actor
from dramatiq.broker import Broker
from dramatiq.middleware import Middleware

from switchyard.broker.interface import Facilities, attach
from switchyard.broker.keys.keys import Keys
from switchyard.broker.stores.kept_results import RecordResults
from switchyard.broker.stores.pool_reports import PoolReports
from switchyard.broker.topology import Yard
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
    MemoryRateWindows,
)
from switchyard.testing.transport import MemoryTransport
from switchyard.wiring import in_order, project_dead_letter


@dataclass(frozen=True, slots=True)
class MemoryYard:
    """A broker in memory, with all that belongs to it."""

    broker: MemoryBroker
    runner: Runner
    dead_lists: MemoryDeadLists
    records: MemoryJobRecords
    windows: MemoryRateWindows
    alerts: MemoryAlertGroups
    groups: MemoryGroupBarriers
    calls: MemoryCalls
    yard: Yard

    def clear(self) -> None:
        """Forget messages, records, dead letters, rate windows, alerts, groups and counters."""
        stores = (self.broker, self.dead_lists, self.records, self.windows, self.alerts, self.groups, self.calls)
        for store in stores:
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
    stores = (dead_lists, records, windows, alerts, groups, calls)
    return MemoryYard(broker, Runner(broker), *stores, yard)


def _middleware(real: Broker, ours: list[Middleware]) -> list[Middleware]:
    """Return the middleware of a real broker, with ours for memory in the places of those for its server.

    A broker of another library has Dramatiq's middleware, which ours replaces.
    """
    if not hasattr(real, "switchyard"):
        return ours
    by_type = {type(entry): entry for entry in ours}
    of_server = (WatchedTask, ClockComparison, SendsInTesting)
    return [by_type.get(type(entry), entry) for entry in real.middleware if not isinstance(entry, of_server)]
