"""Dramatiq's own middleware on our broker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import CurrentMessage, Middleware, Retries, default_middleware

from switchyard.broker.keys import Keys
from switchyard.broker.redis_broker import RedisBroker

Build = Callable[..., RedisBroker]


@pytest.fixture
def build(valkey: redis.Redis) -> Iterator[Build]:
    """Build a broker with the queue ``work``, keys of its own, and these middleware; it is Dramatiq's global one."""
    built: list[RedisBroker] = []
    before = dramatiq.get_broker()

    def make(*middleware: Middleware) -> RedisBroker:
        broker = RedisBroker(valkey, Keys(f"test-{uuid.uuid4().hex[:8]}"), middleware=list(middleware))
        broker.declare_queue("work")
        built.append(broker)
        dramatiq.set_broker(broker)
        return broker

    yield make
    dramatiq.set_broker(before)
    for broker in built:
        broker.close()


def dead_count(broker: RedisBroker) -> int:
    return int(broker.client.llen(broker.families["work"].keys.dead))


def test_a_failing_message_is_retried_by_dramatiqs_own_retries_under_one_id(build: Build, run_worker: Any) -> None:
    broker = build(Retries(min_backoff=10, max_backoff=50), CurrentMessage())
    ids: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=3)
    def flaky() -> None:
        current = CurrentMessage.get_current_message()
        ids.append(current.message_id if current else "")
        if len(ids) < 3:
            raise RuntimeError("not yet")

    with run_worker(broker=broker):
        sent = flaky.send()
        broker.join("work", timeout=60_000)

    assert ids == [sent.message_id] * 3
    assert dead_count(broker) == 0


def test_dramatiqs_own_retries_give_up_and_the_message_is_a_dead_letter(build: Build, run_worker: Any) -> None:
    broker = build(Retries(min_backoff=10, max_backoff=50))
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=2)
    def broken() -> None:
        runs.append(1)
        raise RuntimeError("no")

    with run_worker(broker=broker):
        broken.send()
        broker.join("work", timeout=60_000)

    assert len(runs) == 3
    assert dead_count(broker) == 1


def test_the_default_middleware_runs_as_it_is(build: Build, run_worker: Any) -> None:
    broker = build(*(made() for made in default_middleware))
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        done.append(number)

    with run_worker(broker=broker):
        for number in range(20):
            job.send(number)
        broker.join("work", timeout=60_000)

    assert sorted(done) == list(range(20))
