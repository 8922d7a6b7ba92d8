"""Messages that a living worker took and does not have: an answer was lost, a consumer was started anew."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.message import Message

from broker import redis_broker
from broker.clients import connect
from broker.embedded import EmbeddedServer
from broker.interface import facilities
from broker.keys import Keys
from broker.redis_broker import RedisBroker
from project.wiring import build_yard
from tests.factories.yards import small_yard
from tests.waiting import wait_for

BuildBroker = Callable[..., RedisBroker]


@pytest.fixture(autouse=True)
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_broker, "LOOK_FOR_LOST_S", 0.1, raising=False)
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)


def test_a_delayed_message_runs_although_the_server_was_away_meanwhile(tmp_path: Path, run_worker: Any) -> None:
    server = EmbeddedServer(tmp_path / "valkey").start()
    try:
        broker = build_yard(small_yard(), connect(server.url), Keys("limbo"))
        done = threading.Event()

        @dramatiq.actor(broker=broker, queue_name="work")
        def job() -> None:
            done.set()

        with run_worker(broker=broker):
            job.send_with_options(delay=3_000)
            held = f"{broker.namespace}:__acks__.{broker.broker_id}.work.DQ"
            wait_for(lambda: broker.client.scard(held) == 1)
            server.stop()
            threading.Event().wait(1.5)
            server.start()
            assert done.wait(10)
    finally:
        server.stop()


@pytest.mark.parametrize("lane", ["work", "work.DQ"])
def test_messages_whose_fetch_was_answered_into_nowhere_run(
    yard_broker: BuildBroker, run_worker: Any, lane: str
) -> None:
    broker = yard_broker(small_yard())
    done: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        done.append(number)

    with run_worker(broker=broker):
        job.send(1)
        wait_for(lambda: done == [1])
    for number in (2, 3):
        job.send_with_options(args=(number,), delay=10 if lane.endswith(".DQ") else None)
    assert len(broker.do_fetch(lane, 2)) == 2
    with run_worker(broker=broker):
        wait_for(lambda: sorted(done) == [1, 2, 3])

    assert broker.client.hlen(f"{broker.namespace}:{lane}.msgs") == 0


def test_a_running_message_is_not_taken_for_lost(yard_broker: BuildBroker, run_worker: Any) -> None:
    broker = yard_broker(small_yard())
    starts: list[int] = []
    end = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def long() -> None:
        starts.append(1)
        end.wait(1.0)

    with run_worker(broker=broker, threads=1):
        for _ in range(2):
            long.send()
        wait_for(lambda: len(starts) == 2)
        wait_for(lambda: facilities(broker).transport.stats("work").live.running == 0)

    assert len(starts) == 2


def test_a_consumer_that_stops_gives_back_what_it_had_not_handed_out(yard_broker: BuildBroker) -> None:
    broker = yard_broker(small_yard())

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    for _ in range(3):
        job.send()
    consumer = broker.consume("work", prefetch=3)
    handed_out = next(consumer)
    consumer.close()

    assert handed_out is not None
    assert broker.do_qsize("work") == 4, "three bodies, one held"
    assert broker.client.llen(f"{broker.namespace}:work") == 2


@pytest.mark.parametrize("option", ["attempts", "generation", "enqueued_at", "due_at"])
def test_a_message_with_a_number_that_is_none_is_set_aside(
    yard_broker: BuildBroker, run_worker: Any, option: str
) -> None:
    broker = yard_broker(small_yard())
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        runs.append(1)
        raise RuntimeError("no")

    message: Message[Any] = broken.message()
    rubbish = message.copy(options={"redis_message_id": "x", option: "many"})
    broker.do_enqueue("work", "x", rubbish.encode())
    with run_worker(broker=broker), contextlib.suppress(redis.RedisError):
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 1)

    assert runs == []
