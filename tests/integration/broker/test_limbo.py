"""Messages that a living worker took and does not have: an answer was lost, a consumer was started anew."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.message import Message

from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.embedded.server import EmbeddedServer
from switchyard.wiring import build_yard
from tests.chaos.load import let_pass
from tests.factories.yards import small_yard
from tests.waiting import wait_for


@pytest.fixture(autouse=True)
def soon_again(monkeypatch: pytest.MonkeyPatch) -> None:
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
            wait_for(lambda: facilities(broker).transport.stats("work").live.scheduled == 1)
            server.stop()
            let_pass(1.5)
            server.start()
            assert done.wait(30)
    finally:
        server.stop()


@pytest.mark.parametrize("lane", ["work", "work-retry"])
def test_messages_whose_fetch_was_answered_into_nowhere_come_to_the_next_consumer(
    broker: RedisBroker, lane: str
) -> None:
    family, which = broker.lane(lane)
    before = broker.consume(lane, prefetch=4, timeout=1)
    assert next(before) is None
    (owner,) = family.owners()
    family.enqueue([Entry(f"job-{number}", body()) for number in range(2)], lane=which)
    family.fetch(owner, 2, request=1)  # whose answer nobody reads; or that of the fetch which the consumer sent ahead
    wait_for(lambda: len(family.held(owner)) == 2)

    before.close()
    after = broker.consume(lane, prefetch=4)
    found = [next(after), next(after)]

    assert [message and message.message_id for message in found] == ["job-0", "job-1"]


def test_a_running_message_is_not_taken_for_lost(broker: RedisBroker, run_worker: Any) -> None:
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


def test_a_consumer_that_stops_gives_back_what_it_had_not_handed_out(broker: RedisBroker) -> None:

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None: ...

    for _ in range(3):
        job.send()
    consumer = broker.consume("work", prefetch=3)
    handed_out = next(consumer)
    consumer.close()

    assert handed_out is not None
    live = facilities(broker).transport.stats("work").live
    assert (live.waiting, live.running) == (2, 1)


@pytest.mark.parametrize("option", ["attempts", "generation", "enqueued_at", "due_at"])
def test_a_message_with_a_number_that_is_none_is_set_aside(broker: RedisBroker, run_worker: Any, option: str) -> None:
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        runs.append(1)
        raise RuntimeError("no")

    broker.families["work"].enqueue([Entry("x", body(**{option: "many"}))])
    with run_worker(broker=broker):
        wait_for(lambda: facilities(broker).transport.stats("work").quarantined == 1)

    assert runs == []


def body(**options: Any) -> bytes:
    message: Message[Any] = Message("work", "broken", (), {}, options)
    return codec.encode(message)
