"""Deliveries that ended without a note make suspects, those whose end is known do not; what the server takes back."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.common import current_millis
from dramatiq.middleware import SkipMessage

from switchyard.addons.rabbitmq.redeliveries import KEPT_MS, LapseRecord
from switchyard.addons.rabbitmq.unique_claims import RabbitKeys
from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from tests.addons.rabbitmq.server import RabbitServer
from tests.waiting import wait_for

QUEUE = "work"
TIMEOUT_S = 4


def sent(broker: Any, count: int = 1) -> list[str]:
    job = dramatiq.actor(lambda: None, broker=broker, queue_name=QUEUE, actor_name="job")
    return [job.send().message_id for _ in range(count)]


def held(broker: Any, count: int = 1, lane: str = QUEUE) -> tuple[Any, list[Any]]:
    broker.declare_queue(lane)
    consumer = broker.consume(lane, prefetch=8, timeout=200)
    found = [wait_for(lambda: next(consumer), what="a message") for _ in range(count)]
    return consumer, found


def killed(consumer: Any) -> None:
    """End a consumer as the end of its process does: the server hears of it, and nobody notes anything."""
    consumer._disconnect()
    consumer.closed = True


def refused(*_: Any, **__: Any) -> None:
    raise BrokerUnavailable("a test", "it is away", outcome="refused")


def test_what_was_held_when_all_ended_without_a_word_is_a_suspect(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    [id_] = sent(broker)
    first, [_] = held(broker)

    killed(first)

    _, [again] = held(other)
    assert (again.message_id, again.lapses, again.cause) == (id_, (), "alone")
    assert list(other.redeliveries.suspects(QUEUE)) == [id_]


@pytest.mark.parametrize("way", ["requeue", "close", "lost"])
def test_what_goes_back_in_order_is_no_suspect(rabbit_yard, way):
    broker, other = rabbit_yard(), rabbit_yard()
    sent(broker)
    first, [message] = held(broker)

    if way == "requeue":
        first.requeue([message])
        next(first)
    elif way == "lost":
        first._lose()
    first.close()

    _, [again] = held(other)
    assert (again.lapses, again.cause, again.crashes) == (None, "", 0)
    assert other.redeliveries.suspects(QUEUE) == {}
    assert other.client.zcard(RabbitKeys("test-rabbit").returned()) == 0


def test_stock_of_over_a_second_is_no_suspect_and_is_one_again_once_it_starts(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    runs, waits = sent(broker, 2)
    sent(other, 0)
    first, messages = held(broker, 2)
    marks = lambda: broker.client.zcard(RabbitKeys("test-rabbit").returned())  # noqa: E731
    for message in messages:
        message.received_s -= 2
    first._check_old_s = 0.0
    next(first)
    assert marks() == 2
    [started] = [message for message in messages if message.message_id == runs]
    broker.emit_before("process_message", started)
    assert marks() == 1

    killed(first)

    _, found = held(other, 2)
    assert {message.message_id: message.lapses for message in found} == {runs: (), waits: None}


def test_a_message_that_starts_while_it_is_noted_as_stock_is_no_stock_in_the_end(rabbit_yard, monkeypatch):
    broker = rabbit_yard()
    sent(broker)
    consumer, [message] = held(broker)
    message.received_s -= 2
    noted, go_on = threading.Event(), threading.Event()
    note_returns = broker.redeliveries.note_returns

    def note_slowly(marks: list[int]) -> None:
        noted.set()
        assert go_on.wait(10)
        note_returns(marks)

    monkeypatch.setattr(broker.redeliveries, "note_returns", note_slowly)
    noting = threading.Thread(target=consumer.waiting.note, args=(broker.in_flight, consumer))
    noting.start()
    assert noted.wait(10)
    starting = threading.Thread(target=broker.emit_before, args=("process_message", message))
    starting.start()
    wait_for(lambda: message.runs_in)
    go_on.set()
    noting.join(10)
    starting.join(10)

    assert broker.client.zcard(RabbitKeys("test-rabbit").returned()) == 0


def test_stock_that_is_skipped_after_its_connection_was_lost_is_no_suspect_elsewhere(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    sent(broker)
    sent(other, 0)
    first, [message] = held(broker)
    message.received_s -= 2
    first._check_old_s = 0.0
    next(first)
    first._lose()

    with pytest.raises(SkipMessage):
        broker.emit_before("process_message", message)

    _, [again] = held(other)
    assert (again.message_id, again.lapses) == (message.message_id, None)


def test_a_running_message_that_is_delivered_again_here_is_no_suspect_once_it_ends(rabbit_yard, monkeypatch):
    broker = rabbit_yard()
    [id_] = sent(broker)
    first, [message] = held(broker)
    broker.emit_before("process_message", message)
    with monkeypatch.context() as away:  # both servers are, as behind one switch
        away.setattr(broker.redeliveries._calls, "pipeline", refused)
        first._lose()
    again = broker.consume(QUEUE, prefetch=8, timeout=20)
    wait_for(lambda: next(again) or message.source is again)
    assert list(broker.redeliveries.suspects(QUEUE)) == [id_]

    again.ack(message)

    assert broker.redeliveries.suspects(QUEUE) == {}


def test_a_lone_run_that_ends_without_a_word_is_counted_and_one_that_ends_clears_the_suspect(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    alone = f"{QUEUE}-alone"
    for each in (broker, other):
        sent(each, 0)
        each.declare_queue(alone)
        each.flush(alone)
        each.become("pool.host.1.a.1.1", slots=1)
        each.runs_suspects = True
    message = dramatiq.Message(queue_name=alone, actor_name="job", args=(), kwargs={}, options={})
    broker.publish(message, alone)
    broker.redeliveries._calls.command(
        "HSET", Keys("test-rabbit").queue(QUEUE).suspects, message.message_id, LapseRecord(current_millis()).encode()
    )
    first, [runs] = held(broker, lane=alone)
    assert runs.lapses == ()
    broker.emit_before("process_message", runs)
    assert broker.redeliveries.suspects(QUEUE)[message.message_id].alone

    killed(first)

    second, [again] = held(other, lane=alone)
    [lapse] = again.lapses
    assert abs(int(lapse.partition("@")[0]) - time.time() * 1000) < 10_000
    other.emit_before("process_message", again)
    second.ack(again)
    assert other.redeliveries.suspects(QUEUE) == {}


def test_a_delay_that_ends_with_its_worker_makes_no_suspect_and_clears_none(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    job = dramatiq.actor(lambda: None, broker=broker, queue_name=QUEUE, actor_name="job")
    other.declare_queue(QUEUE)
    suspect, _ = (job.send_with_options(delay=1_000).message_id for _ in range(2))
    note = LapseRecord(current_millis(), "", ("1@host",)).encode()
    broker.calls.command("HSET", Keys("test-rabbit").queue(QUEUE).suspects, suspect, note)
    first = broker.consume(f"{QUEUE}.DQ", prefetch=8, timeout=200)
    wait_for(lambda: next(first) is None and len(first.outgoing.unacked) == 2)
    killed(first)

    second = other.consume(f"{QUEUE}.DQ", prefetch=8, timeout=200)
    wait_for(lambda: next(second) is None and other.lane_stats(QUEUE).waiting == 2)

    assert list(other.redeliveries.suspects(QUEUE)) == [suspect]


def test_notes_expire_although_nothing_is_noted_after_them(rabbit_yard):
    broker, other = rabbit_yard(), rabbit_yard()
    keys = Keys("test-rabbit")
    sent(broker, 2)
    first, [held_one, _] = held(broker, 2)
    first.requeue([held_one])
    next(first)
    assert 0 < broker.client.ttl(RabbitKeys(keys.prefix).returned()) <= KEPT_MS // 1000

    killed(first)

    held(other, 2)
    suspects = keys.queue(QUEUE).suspects
    assert 0 < broker.client.ttl(suspects) <= KEPT_MS // 1000
    broker.client.persist(suspects)
    broker.redeliveries.note_alone(QUEUE, "alone", ())
    assert 0 < broker.client.ttl(suspects) <= KEPT_MS // 1000


@pytest.fixture(scope="module")
def impatient(tmp_path_factory) -> Iterator[dict[str, Any]]:
    """How a yard is built on a server that takes back what a worker holds for longer than 4 s."""
    server = RabbitServer(tmp_path_factory.mktemp("impatient"), consumer_timeout_s=TIMEOUT_S).start()
    yield {"keys": "timeout", "url": server.url, "consumer_timeout_s": TIMEOUT_S}
    server.stop()


@pytest.mark.long
@pytest.mark.timeout(240)
def test_tasks_of_half_of_the_timeout_run_once_however_long_they_wait(rabbit_yard, impatient, run_worker):
    broker, ran = rabbit_yard(**impatient), Counter[int]()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        ran[number] += 1
        threading.Event().wait(TIMEOUT_S / 2 - 0.2)

    with run_worker(broker=broker, threads=1):
        ids = [job.send(number).message_id for number in range(6)]
        wait_for(lambda: all(broker.switchyard.records.read(id_).state == "succeeded" for id_ in ids))

    assert ran == Counter(range(6))
    assert broker.lane_stats("work").waiting == 0


@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_task_longer_than_the_timeout_is_given_to_another_worker_as_well(rabbit_yard, impatient, run_worker):
    first, second, starts = rabbit_yard(**impatient), rabbit_yard(**impatient), list[float]()
    go_on = threading.Event()

    def job() -> None:
        starts.append(time.monotonic())
        go_on.wait(30)

    for broker in (first, second):
        dramatiq.actor(job, broker=broker, queue_name="work", actor_name="job")
    with run_worker(broker=first, threads=1):
        id_ = first.get_actor("job").send().message_id
        wait_for(lambda: starts)
        with run_worker(broker=second, threads=1):
            wait_for(lambda: len(starts) == 2)
            go_on.set()
            wait_for(lambda: first.switchyard.records.read(id_).state == "succeeded")

    assert starts[1] - starts[0] > TIMEOUT_S
