"""Consumers of a worker: they share its room, give it up for one another, and lose nothing that was taken."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.message import Message

from switchyard.broker.consumer import Consumer
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.keys import Keys
from switchyard.broker.queue import codec
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.worker.prefetch import Wakeup
from switchyard.embedded.server import EmbeddedServer
from switchyard.wiring import build_yard
from tests.chaos.load import let_pass
from tests.factories.yards import small_yard
from tests.waiting import wait_for


def put(broker: RedisBroker, id_: str, *, lane: Any = "live") -> None:
    """Put a message into a lane, past the middleware."""
    family = broker.families["work"]
    message: Message[Any] = Message(family.keys.lane_name(lane), "job", (), {}, {})
    family.enqueue([Entry(id_, codec.encode(message))], lane=lane)


def listening(consumer: Consumer) -> bool:
    """Return whether a consumer waits for its bell."""
    return consumer._wakeup.pending


def listen(consumer: Consumer) -> None:
    """Have a consumer of an empty lane wait for its bell. On a busy machine its timeout may pass before it does."""
    wait_for(lambda: next(consumer) is None and listening(consumer))


def block_for_30_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a wait that nobody ends take longer than a busy machine takes for anything."""
    monkeypatch.setattr("switchyard.broker.worker.prefetch.LONGEST_BLOCK_S", 30)
    monkeypatch.setattr("switchyard.broker.worker.prefetch.SILENT_S", 40.0)


def test_a_lane_that_is_consumed_later_waits_for_no_room(broker: RedisBroker) -> None:
    alone = broker.consume("work", prefetch=4)
    thread = threading.Thread(target=lambda: next(alone), daemon=True)
    thread.start()
    wait_for(lambda: listening(alone))
    put(broker, "retry-1", lane="retry")

    found = next(broker.consume("work-retry", prefetch=4, timeout=30_000))
    put(broker, "last")
    thread.join(30)

    assert found is not None
    assert found.message_id == "retry-1"


def test_what_only_the_former_server_acknowledged_is_released_to_its_lane(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume("work", prefetch=4)
    put(broker, "held")
    put(broker, "forgotten")
    held, forgotten = next(consumer), next(consumer)
    assert held is not None
    assert forgotten is not None
    del broker.in_flight["forgotten"]  # its acknowledgement went to the former server
    put(broker, "next")

    monkeypatch.setattr(RedisCalls, "server_changes", 1)
    found = [next(consumer), next(consumer)]

    assert [message.message_id for message in found if message] == ["forgotten", "next"]


def test_a_second_worker_leaves_alone_what_another_has_fetched_and_not_yet_started(broker: RedisBroker) -> None:
    found = []
    for number in range(4):
        put(broker, f"m{number}")

    def consume() -> None:  # as each worker does in a thread of its own
        consumer = broker.consume("work", prefetch=4, timeout=50)
        found.append(next(consumer))
        consumer.close()

    first = broker.consume("work", prefetch=8)
    mine = [next(first)]
    for _ in range(2):
        thread = threading.Thread(target=consume)
        thread.start()
        thread.join()
    mine += [next(first) for _ in range(3)]

    assert found == [None, None]
    assert [message.message_id for message in mine if message] == ["m0", "m1", "m2", "m3"]
    assert len(broker.families["work"].owners()) == 2  # the third consumer has that of the second


def test_a_consumer_that_is_closed_twice_counts_once(broker: RedisBroker) -> None:
    first, second = broker.consume("work"), broker.consume("work-retry")

    first.close()
    first.close()

    assert broker.credit_of("work").consumers == 1
    second.close()


def test_a_worker_of_many_lanes_never_waits_for_a_bell_that_rang(
    broker: RedisBroker, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_for_30_s(monkeypatch)
    done = threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        done.set()

    for _ in range(15):
        done.clear()
        with run_worker(broker=broker):
            job.send()
            assert done.wait(15), "a wait for a bell that rang ends after 30 s"


def test_a_share_whose_interruption_comes_late_ends_no_consumer(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume("work", prefetch=4, timeout=200)
    request, interruptions = Wakeup.request, [BrokerUnavailable("BLPOP", "Broken pipe")]

    def interrupted(self: Wakeup, *command: Any) -> None:
        if interruptions:
            raise interruptions.pop()
        request(self, *command)

    monkeypatch.setattr(Wakeup, "request", interrupted)
    consumer.share()

    listen(consumer)

    assert interruptions == []


def test_a_share_that_is_noticed_before_its_interruption_ends_no_consumer(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = broker.consume("work", prefetch=4, timeout=500)
    listen(consumer)
    request, interrupt = Wakeup.request, Wakeup.interrupt
    interrupting, requested = threading.Event(), threading.Event()

    def interrupt_late(self: Wakeup) -> None:
        interrupting.set()
        requested.wait(0.3)  # time for a consumer to listen anew, which it must not before this is over
        interrupt(self)

    def noted_request(self: Wakeup, *command: Any) -> None:
        request(self, *command)
        requested.set()

    monkeypatch.setattr(Wakeup, "interrupt", interrupt_late)
    monkeypatch.setattr(Wakeup, "request", noted_request)
    other = threading.Thread(target=consumer.share)
    other.start()
    assert interrupting.wait(30)

    assert next(consumer) is None

    other.join()
    assert next(consumer) is None
    assert listening(consumer)


def test_what_a_fetch_brought_in_the_moment_of_a_drain_goes_back(broker: RedisBroker) -> None:
    consumer = broker.consume("work", prefetch=4, timeout=50)
    listen(consumer)
    put(broker, "came")
    family = broker.families["work"]
    wait_for(lambda: [lease for owner in family.owners() for lease in family.held(owner)])

    broker.drain()

    assert next(consumer) is None
    assert [lease for owner in family.owners() for lease in family.held(owner)] == []
    assert facilities(broker).transport.stats("work").live.waiting == 1


def test_a_drain_that_cannot_ask_what_it_holds_asks_again(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    consumer = broker.consume("work", prefetch=4, timeout=50)
    listen(consumer)
    put(broker, "came")
    family = broker.families["work"]
    wait_for(lambda: [lease for owner in family.owners() for lease in family.held(owner)])

    def refuse(owner: str) -> None:
        raise BrokerUnavailable("held", "connection refused")

    with monkeypatch.context() as away:
        away.setattr(family, "held", refuse)
        broker.drain()
        assert next(consumer) is None
    assert next(consumer) is None
    assert facilities(broker).transport.stats("work").live.waiting == 1


def test_credit_is_shared_although_another_process_takes_the_wake_up(
    broker: RedisBroker, valkey: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    block_for_30_s(monkeypatch)
    bell, waiter = broker.families["work"].keys.wakeup("live"), valkey.client()
    own = str(waiter.client_id())
    other = threading.Thread(target=lambda: waiter.blpop([bell], 60), daemon=True)
    other.start()  # first in line for the wake-up of the live lane
    wait_for(lambda: [each for each in valkey.client_list() if each["id"] == own and "b" in each["flags"]])
    first = broker.consume("work", prefetch=1)
    thread = threading.Thread(target=lambda: next(first), daemon=True)
    thread.start()
    wait_for(lambda: listening(first))
    put(broker, "retry-1", lane="retry")

    found = next(broker.consume("work-retry", prefetch=1, timeout=20_000))
    broker.drain()  # ends the first one's search for room
    valkey.rpush(bell, "the end")
    for each in (thread, other):
        each.join(30)
        assert not each.is_alive()
    first.close()

    assert found is not None, "the listening consumer kept its credit until its own wait ended"


@pytest.mark.parametrize("listens", [False, True])
def test_a_report_that_fails_costs_no_room(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch, listens: bool) -> None:
    consumer = broker.consume("work", prefetch=4, timeout=500)
    free = broker.credit_of("work")._free
    if listens:
        listen(consumer)
    put(broker, "one")
    with monkeypatch.context() as patched:
        patched.setattr(broker, "report_stale", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            wait_for(lambda: next(consumer))
    consumer.close()

    again = broker.consume("work", prefetch=4, timeout=30_000)
    found = next(again)

    assert found is not None
    assert found.message_id == "one"
    again.requeue([found])
    again.close()
    assert broker.credit_of("work")._free == free


def test_a_delayed_message_runs_although_the_server_was_away_meanwhile(
    tmp_path: Path, run_worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
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
    body = codec.encode(Message("work", "broken", (), {}, {}))
    family.enqueue([Entry(f"job-{number}", body) for number in range(2)], lane=which)
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
    for number in range(3):
        put(broker, f"m{number}")
    consumer = broker.consume("work", prefetch=3)
    handed_out = next(consumer)
    consumer.close()

    assert handed_out is not None
    live = facilities(broker).transport.stats("work").live
    assert (live.waiting, live.running) == (2, 1)
