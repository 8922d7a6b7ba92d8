"""Rights of the users of the Redis server beside RabbitMQ, which holds no messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from switchyard.addons.rabbitmq.unique_claims import CLAIM_FILE
from switchyard.broker.redis.acl import PURGES, RECORDED, Role


def rights(roles: Mapping[str, Role]) -> dict[str, Role]:
    """Return the roles of a yard on RabbitMQ: who sends a message writes its record and claims its unique key."""
    producer, scheduler, worker, room = (roles[name] for name in ("producer", "scheduler", "worker", "room"))
    sends, kept = {"job_write", CLAIM_FILE}, tuple(each for each in scheduler.only if ":aside:" not in each[0])
    return {
        "producer": replace(producer, scripts=producer.scripts | sends, only=(*producer.only, RECORDED)),
        "scheduler": replace(scheduler, scripts=scheduler.scripts - PURGES | sends, only=kept),
        "worker": replace(worker, scripts=worker.scripts | {CLAIM_FILE}),
        "room": replace(room, scripts=room.scripts | {CLAIM_FILE}),
    }
