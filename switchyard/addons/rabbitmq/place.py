"""Construction of a yard's broker on RabbitMQ, with a Redis server beside it."""

from __future__ import annotations

from typing import Any

import redis

from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.transport import RabbitTransport
from switchyard.addons.rabbitmq.unique_claims import UniqueClaims
from switchyard.broker.redis.access import calls_on
from switchyard.broker.stores.dead_lists import DeadLists
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.quarantine import Quarantine
from switchyard.broker.topology import Yard
from switchyard.broker.worker.ack_barrier import AckBarrier
from switchyard.wiring import depths


def on_rabbitmq(
    yard: Yard, client: redis.Redis, records: JobRecords, barrier: AckBarrier, *, url: str, **options: Any
) -> tuple[RabbitBroker, RabbitTransport]:
    """Return the broker of a yard on a RabbitMQ server, with its transport; ``client`` is of the server beside it.

    Args:
        options: For :class:`switchyard.addons.rabbitmq.broker.RabbitBroker`.
    """
    calls, keys = records.calls, records.keys
    claims = UniqueClaims(calls, keys, records)
    options = {"limits": depths(yard), "barrier": barrier, "claims": claims, "stores": (calls,), **options}
    broker = RabbitBroker(url, calls_on(client), keys, **options)
    return broker, RabbitTransport(broker, yard, DeadLists(calls, keys), Quarantine(calls, keys), records)
