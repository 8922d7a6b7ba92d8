"""A broker of each test's own, whose sends wait for commits."""

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Pool, Queue, Yard

MakeBroker = Callable[..., RedisBroker]

YARD = Yard(
    queues=(
        Queue("default", objective_ms=1_000, soft_limit_ms=1_000, hard_limit_ms=2_000, max_depth=10, calls="nothing"),
        Queue("urgent", objective_ms=1_000, soft_limit_ms=1_000, hard_limit_ms=2_000, calls="nothing"),
    ),
    pools=(Pool("all", "threads", ("default", "urgent"), processes=1, slots=1, shared_retries=True),),
)


@pytest.fixture
def make_broker(yard_broker, transactional_db) -> MakeBroker:
    """Build a broker with the setting ``SENDS`` of the call."""
    return lambda sends="on_commit": yard_broker(YARD, sends=sends)


def actor_on(broker: RedisBroker, name: str = "greet", queue: str = "default", **options: object) -> dramatiq.Actor:
    def greet(name: Any) -> None: ...

    return dramatiq.actor(greet, broker=broker, actor_name=name, queue_name=queue, **options)


def waiting(broker: RedisBroker, queue: str = "default") -> list[str]:
    """Return the first arguments of what waits in a queue, in order."""
    family, _ = broker.lane(queue)
    ids = family.calls.command("LRANGE", family.keys.waiting("live")[1], 0, -1)
    messages = [broker.switchyard.transport.find_message(queue, id_.decode()) for id_ in ids]
    return [message.args[0] for message in messages if message is not None]
