"""Construction of a supervisor's leases, for the broker that the yard is on."""

from __future__ import annotations

from typing import cast

from dramatiq.broker import Broker

from switchyard.broker.interface import SupervisedBroker
from switchyard.broker.queue.lease_steps import TICK_S
from switchyard.broker.queue.operations import QueueOperations
from switchyard.broker.redis.access import calls_on
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Pool, Yard
from switchyard.workers.supervisor.leases import ChildLeases, Served


def connect_leases(pool: Pool, yard: Yard, broker: Broker, url: str) -> ChildLeases:
    """Return the leases of a pool's children, over connections of their own.

    Args:
        broker: The yard's; its keys are used.
        url: Address of its server.

    Raises:
        TypeError: the broker is not this library's.
    """
    if not isinstance(broker, SupervisedBroker):
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
