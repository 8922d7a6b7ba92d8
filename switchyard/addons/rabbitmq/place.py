"""RabbitMQ as the place of a yard's queues: its transport, and the construction of its broker."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import redis

from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.majority import UNCONFIRMED, confirms
from switchyard.addons.rabbitmq.unique_claims import Requeues, UniqueClaims
from switchyard.broker.held_message import moved_copy
from switchyard.broker.interface import Arguments, Held
from switchyard.broker.portable_transport import PortableTransport
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.shapes import Moved
from switchyard.broker.stores.dead_lists import DeadLists, Quarantine
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.topology import Yard
from switchyard.broker.worker.acks import AckBarrier
from switchyard.wiring import depths


class RabbitTransport(PortableTransport):
    """:class:`switchyard.broker.portable_transport.PortableTransport` with isolated runs and the server's figures."""

    def __init__(
        self, broker: RabbitBroker, yard: Yard, dead_lists: DeadLists, quarantine: Quarantine, records: JobRecords
    ) -> None:
        super().__init__(broker, yard, dead_lists, quarantine, records)
        self._rabbit = broker
        self._requeues = Requeues(records.calls, records.keys)

    def requeue(
        self, queue: str, letters: Mapping[str, int], *, nonce: str, arguments: Arguments | None = None
    ) -> dict[str, Moved]:
        """Requeue dead letters one by one, each under a claim: of two requeues at a time one sends it."""
        requeue = partial(super().requeue, queue, nonce=nonce, arguments=arguments)
        return {id_: self._requeues.once(queue, id_, at, nonce=nonce, requeue=requeue) for id_, at in letters.items()}

    def isolate(self, held: Held) -> bool:
        lane = self._yard.queue_of(held.queue_name).alone_lane
        self._rabbit.declare_queue(lane)
        self._rabbit.publish(moved_copy(held, lane, {}), lane)
        held.moved = True  # type: ignore[union-attr]
        return True

    def refusal(self) -> tuple[str, str]:
        """Ask whether the quorum queues confirm, see :func:`switchyard.addons.rabbitmq.majority.confirms`."""
        return ("", "") if confirms(self._rabbit.publishers, self._rabbit.server_queues) else UNCONFIRMED


def on_rabbitmq(
    yard: Yard, client: redis.Redis, records: JobRecords, barrier: AckBarrier, *, url: str, **options: Any
) -> tuple[RabbitBroker, RabbitTransport]:
    """Return the broker of a yard on a RabbitMQ server, with its transport; ``client`` is of the server beside it."""
    calls, keys = records.calls, records.keys
    claims = UniqueClaims(calls, keys, records)
    options = {"limits": depths(yard), "barrier": barrier, "claims": claims, "stores": (calls,), **options}
    broker = RabbitBroker(url, calls_on(client), keys, **options)
    return broker, RabbitTransport(broker, yard, DeadLists(calls, keys), Quarantine(calls, keys), records)
