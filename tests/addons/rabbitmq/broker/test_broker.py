"""Additions of the broker on RabbitMQ to its server: long delays, unique keys, levels, odd and ended deliveries."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import dramatiq
import pika
import pytest
from dramatiq.actor import Actor
from dramatiq.message import Message
from pika.exceptions import ChannelClosedByBroker

from switchyard.addons.rabbitmq import majority, unique_claims
from switchyard.addons.rabbitmq.broker import RabbitBroker
from switchyard.addons.rabbitmq.connections import CONTENT_TYPE, Publishers, RabbitQueues, disconnect, parameters_of
from switchyard.addons.rabbitmq.unique_claims import UniqueClaims
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable, QueueFull
from switchyard.broker.keys import Keys
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.redis.calls import calls_on
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.worker.prefetch import CELLS, HeldMarks
from switchyard.middleware.errors import InvalidOption
from tests.chaos.fault_proxy import FaultProxy
from tests.waiting import wait_for


def held_job(broker: Any) -> tuple[Actor[..., None], list[Any], threading.Event]:
    """Return an actor of jobs that note what they are sent and wait; the notes; and what lets them go on."""
    ran, go_on = list[Any](), threading.Event()

    def job(what: Any) -> None:
        ran.append(what)
        go_on.wait(60)

    return dramatiq.actor(job, broker=broker, queue_name="work"), ran, go_on


def test_a_delay_longer_than_a_worker_may_hold_it_is_kept_in_redis_and_runs_once(rabbit_yard, run_worker):
    broker, ran = rabbit_yard(consumer_timeout_s=2), []
    job = dramatiq.actor(lambda: ran.append(time.time()), broker=broker, queue_name="work", actor_name="job")

    sent_s = time.time()
    id_ = job.send_with_options(delay=1_200).message_id

    assert broker.count([("work", "test-rabbit.work.DQ")]) == [0]
    assert (broker.mover.delays.count(["work"]), broker.lane_stats("work").scheduled) == ([1], 1)
    assert broker.switchyard.records.read(id_).state == "scheduled"
    with run_worker(broker=broker):
        wait_for(lambda: broker.switchyard.records.read(id_).state == "succeeded")
    assert [run - sent_s >= 1.2 for run in ran] == [True]
    assert broker.mover.delays.count(["work"]) == [0]


def test_a_mover_that_dies_between_its_steps_loses_nothing(rabbit_yard, monkeypatch):
    broker = rabbit_yard(consumer_timeout_s=2)
    broker.enqueue(dramatiq.Message("work", "job", (), {}, {}), delay=1_001)

    def dies(later: object) -> None:
        raise BrokerUnavailable("ZREM", "killed")

    with monkeypatch.context() as death:
        death.setattr(broker.mover.delays, "remove", dies)
        with pytest.raises(BrokerUnavailable):
            wait_for(broker.mover.move)
    wait_for(broker.mover.move)

    wait_for(lambda: broker.lane_stats("work").waiting == 2)
    assert broker.mover.move() == 0


def test_one_of_two_jobs_with_a_unique_key_is_sent_until_the_first_has_ended(rabbit_yard, run_worker):
    broker = rabbit_yard()
    job = dramatiq.actor(lambda: None, broker=broker, queue_name="work", actor_name="job", unique_key=lambda: "one")

    first, second = job.send(), job.send()
    with run_worker(broker=broker):
        wait_for(lambda: broker.switchyard.records.read(first.message_id).state == "succeeded")
    third = job.send()

    assert second.message_id == first.message_id
    assert third.message_id != first.message_id


def test_a_higher_level_goes_first(rabbit_yard, run_worker):
    broker = rabbit_yard()
    job, ran, go_on = held_job(broker)

    with run_worker(broker=broker, threads=1):
        job.send("first")
        wait_for(lambda: ran)
        for name, priority in (("low", 5), ("normal", 0), ("high", -5)):
            job.send_with_options(args=(name,), priority=priority)
        wait_for(lambda: len(broker.in_flight) == 4)
        go_on.set()
        wait_for(lambda: len(ran) == 4)

    assert ran == ["first", "high", "normal", "low"]


def test_what_waits_too_long_for_a_thread_is_given_back_and_runs_once(rabbit_yard, run_worker):
    broker = rabbit_yard(consumer_timeout_s=2)
    job, ran, go_on = held_job(broker)

    with run_worker(broker=broker, threads=1):
        job.send(1)
        wait_for(lambda: ran == [1])
        second = job.send(2).message_id
        held = wait_for(lambda: broker.in_flight.get(second))
        wait_for(lambda: (again := broker.in_flight.get(second)) is not None and again is not held)
        go_on.set()
        wait_for(lambda: broker.switchyard.records.read(second).state == "succeeded")

    assert ran == [1, 2]


def test_a_task_outlives_its_connection_and_runs_once(rabbit_yard, run_worker):
    broker = rabbit_yard()
    job, ran, go_on = held_job(broker)

    with run_worker(broker=broker, threads=2) as worker:
        id_ = job.send(1).message_id
        wait_for(lambda: ran)
        held = broker.in_flight[id_]
        lost = held.source
        lost._connection.add_callback_threadsafe(lost._disconnect)
        wait_for(lambda: held.source is not lost)
        go_on.set()
        wait_for(lambda: broker.switchyard.records.read(id_).state == "succeeded")
        worker.join()

    assert ran == [1]
    wait_for(lambda: broker.lane_stats("work").waiting == 0)


def test_a_failing_job_takes_its_retries_and_ends_in_its_dead_list(rabbit_yard, run_worker):
    broker = rabbit_yard()

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker):
        id_ = broken.send().message_id
        wait_for(lambda: broker.switchyard.records.read(id_).state == "dead")

    letter = broker.switchyard.transport.find_dead_letter("work", id_)
    assert letter is not None and letter.attempts == 2
    assert broker.switchyard.transport.stats("work").quarantined == 0, "the server keeps no second copy"


@pytest.fixture
def proxy(rabbitmq_server) -> Iterator[FaultProxy]:
    with FaultProxy(rabbitmq_server.port) as proxy:
        yield proxy


def through(proxy: FaultProxy, query: str = "") -> str:
    return f"amqp://guest:guest@127.0.0.1:{proxy.port}/{query}"


def test_an_acknowledgement_that_the_network_swallows_does_not_run_a_job_again(
    rabbit_yard, run_worker, proxy, monkeypatch
):
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    broker = rabbit_yard(url=through(proxy))
    job, ran, go_on = held_job(broker)

    with run_worker(broker=broker, threads=2):
        ids = [job.send(number).message_id for number in (1, 2)]
        wait_for(lambda: len(ran) == 2)
        held = [broker.in_flight[id_] for id_ in ids]
        proxy.blackhole()
        go_on.set()
        wait_for(lambda: not any(message.source.outgoing.unacked for message in held))
        proxy.reset()
        proxy.pass_()
        wait_for(lambda: all(message.source.closed for message in held))
        last = job.send(3).message_id
        wait_for(lambda: broker.switchyard.records.read(last).state == "succeeded")
        wait_for(lambda: not any(consumer.outgoing.unacked for consumer in broker._consumers))

    assert sorted(ran) == [1, 2, 3]
    assert broker.lane_stats("work").waiting == 0


@pytest.mark.parametrize(("limits", "outcome"), [({}, "unknown"), ({"work": 10}, "refused")])
def test_a_send_to_a_server_that_does_not_answer_ends_and_says_what_is_known(limits, outcome, rabbit_yard, proxy):
    broker = rabbit_yard(url=through(proxy, "?stack_timeout=0.5&socket_timeout=0.5"))
    broker.limits = DepthLimits(limits)
    broker.publishers.answer_s = 0.3
    message = dramatiq.Message("work", "job", (), {}, {})
    broker.enqueue(message)

    proxy.stall()
    with pytest.raises(BrokerUnavailable) as refused:
        broker.enqueue(message)
    proxy.pass_()

    assert refused.value.outcome == outcome


def test_a_send_whose_kept_connection_was_lost_makes_a_new_one(rabbit_yard, proxy):
    broker = rabbit_yard(url=through(proxy))
    broker.limits = DepthLimits({"work": 10})
    broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))

    proxy.reset()
    broker.enqueue(dramatiq.Message("work", "job", (), {}, {}))

    assert broker.lane_stats("work").waiting == 2


@pytest.mark.parametrize("ask", ["lane_stats", "consume"])
def test_queues_of_another_type_are_refused_with_the_variable(rabbit_yard, ask):
    rabbit_yard().enqueue(dramatiq.Message("work", "job", (), {}, {}))

    with pytest.raises(BrokerRefused, match="SWITCHYARD_RABBITMQ_QUEUES"):
        getattr(rabbit_yard(queue_type="classic"), ask)("work")


def test_of_messages_without_room_for_all_none_is_sent(rabbit_yard):
    broker = rabbit_yard()
    broker.limits = DepthLimits({"work": 3})
    one, other, third, fourth = (dramatiq.Message("work", "job", (), {}, {}) for _ in range(4))
    broker.put([one, other])

    with pytest.raises(QueueFull):
        broker.put([third, fourth])

    assert broker.lane_stats("work").waiting == 2
    broker.put([third])
    assert broker.lane_stats("work").waiting == 3


def test_what_is_no_message_is_refused_and_nothing_is_sent(rabbit_yard):
    broker = rabbit_yard()

    with pytest.raises(TypeError, match=r"an int is not a message; write actor\.message\("):
        broker.enqueue(3)

    assert broker.lane_stats("work").waiting == 0


def test_a_message_that_the_server_rejects_for_a_moment_is_sent_again(rabbitmq_server, monkeypatch):
    rejected: list[Any] = []

    def noted(connection: Any) -> None:
        rejected.append(connection)
        disconnect(connection)

    monkeypatch.setattr("switchyard.addons.rabbitmq.connections.disconnect", noted)
    monkeypatch.setattr("switchyard.addons.rabbitmq.connections.PUBLISH_S", 60)
    publishers, full = Publishers(parameters_of(rabbitmq_server.url)), "full of one"
    with pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url)) as connection:
        channel = connection.channel()
        channel.queue_declare(full, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})

        def publish(body: bytes) -> None:
            publishers.publish(full, body, pika.BasicProperties(), declare=lambda channel: None)

        publish(b"first")
        [first] = publishers._idle
        sending = threading.Thread(target=publish, args=(b"second",))
        sending.start()
        wait_for(lambda: first.connection in rejected, what="a channel that rejected is left: it may go on rejecting")
        assert channel.basic_get(full, auto_ack=True)[2] == b"first"
        sending.join(30)
        assert wait_for(lambda: channel.basic_get(full, auto_ack=True)[2]) == b"second"

        publish(b"third")
        monkeypatch.setattr("switchyard.addons.rabbitmq.connections.PUBLISH_S", 0.1)
        with pytest.raises(BrokerUnavailable, match="queue full of one rejected the message") as refused:
            publish(b"fourth")
        channel.queue_delete(full)
    publishers.close()

    assert refused.value.outcome == "refused"


OURS = b'{"actor":"job","sent_at":1}'


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({"content_type": CONTENT_TYPE, "message_id": "a", "correlation_id": "²"}, OURS),
        ({"content_type": CONTENT_TYPE, "message_id": b"caf\xe9"}, OURS),
        ({"message_id": b"caf\xe9"}, b"no message"),
        ({}, b'{"queue_name":"work","actor_name":"job","args":[],"kwargs":{},"options":{},"message_id":5}'),
        ({}, b"[" * 100_000),
    ],
    ids=["a number of other digits", "an id in Latin-1", "no message, of such an id", "a number as id", "nested"],
)
def test_the_message_behind_a_foreign_one_is_handed_out(rabbit_yard, fields, body):
    broker = rabbit_yard()
    broker.held_marks = HeldMarks(memoryview(bytearray(8 * CELLS)).cast("q"))  # as a pool's child has them
    job = dramatiq.actor(lambda: None, broker=broker, queue_name="work", actor_name="job")
    with broker.publishers.channel() as channel:
        name = broker.server_queues.name("work")
        broker.server_queues.declare(channel, "work", name)
        channel.basic_publish("", name, body, pika.BasicProperties(delivery_mode=2, **fields))
    behind = job.send().message_id

    consumer, found = broker.consume("work", prefetch=8, timeout=200), list[str]()

    def handed_out() -> bool:
        if (message := next(consumer)) is not None:
            found.append(message.message_id)
            consumer.ack(message)
        return behind in found

    wait_for(handed_out)
    consumer.outgoing.send()
    assert found in ([behind], ["a", behind], [r"caf\xe9", behind])


def delete_its_queue(broker: Any, lane: str) -> None:
    """Delete a queue as a person does, over another connection."""
    with pika.BlockingConnection(broker.parameters) as connection:
        connection.channel().queue_delete(broker.server_queues.name(lane))
    broker.publishers.close()


def close_its_channel(broker: Any, lane: str) -> None:
    for each in broker._consumers:
        each._connection.add_callback_threadsafe(partial(each._channel._impl.basic_ack, 10_000))


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
@pytest.mark.parametrize("end", [delete_its_queue, close_its_channel])
def test_work_goes_on(end, queue_type, rabbit_yard, run_worker, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.CONSUMER_RESTART_DELAY_SECS", 0.1)
    broker, ran = rabbit_yard(keys=queue_type, queue_type=queue_type), set[int]()
    job = dramatiq.actor(lambda n: ran.add(n), broker=broker, queue_name="work", actor_name="job")
    with run_worker(broker=broker):
        job.send(1)
        wait_for(lambda: 1 in ran and not broker.in_flight)

        end(broker, "work")
        job.send(2)

        wait_for(lambda: 2 in ran, timeout_s=30)


QUEUES = RabbitQueues("test-existing")
ALL = [name for lane in ("whole", "bare", "missing") for name in QUEUES.every(lane)]


@pytest.fixture
def connection(rabbitmq_server) -> Iterator[Any]:
    """A connection to a server that has the lane ``whole``, and the lane ``bare`` without its rejected messages."""
    connection = pika.BlockingConnection(pika.URLParameters(rabbitmq_server.url))
    channel = connection.channel()
    QUEUES.declare(channel, "bare", QUEUES.name("bare"))
    channel.queue_delete(QUEUES.rejected("bare"))
    QUEUES.declare(channel, "whole", QUEUES.name("whole"))
    yield connection
    channel = connection.channel()
    for name in ALL:
        channel.queue_delete(name)
    connection.close()


def existing(connection: Any) -> list[str]:
    found = []
    for name in ALL:
        with suppress(ChannelClosedByBroker):
            connection.channel().queue_declare(name, passive=True)
            found.append(name)
    return found


def test_no_queue_is_created(connection, rabbitmq_server):
    before = existing(connection)

    majority.ask(rabbitmq_server.url, QUEUES.prefix, "quorum", ["missing", "bare", "whole"])

    assert existing(connection) == before == [QUEUES.name("whole"), QUEUES.rejected("whole"), QUEUES.name("bare")]


def test_a_lane_of_another_type_behind_a_missing_one_is_refused(connection, rabbitmq_server):
    with pytest.raises(BrokerRefused, match="406"):
        majority.ask(rabbitmq_server.url, QUEUES.prefix, "classic", ["missing", "whole"])


def test_all_lanes_together_have_one_deadline(rabbitmq_server, monkeypatch):
    monkeypatch.setattr(majority, "TOGETHER_S", 1.0)

    _, confirms, _ = majority.ask(rabbitmq_server.url, QUEUES.prefix, "quorum", (f"none-{n}" for n in range(100_000)))

    assert confirms


class Records(JobRecords):
    """Tells that some jobs have succeeded; calls ``meanwhile`` once before an answer is used."""

    def __init__(self, ended: set[str], meanwhile: Callable[[], object] = bool) -> None:
        self.ended, self.meanwhile = ended, meanwhile

    def states(self, job_ids: Sequence[str]) -> list[str | None]:
        answer: list[str | None] = ["succeeded" if id_ in self.ended else None for id_ in job_ids]
        meanwhile, self.meanwhile = self.meanwhile, bool
        meanwhile()
        return answer


def send(claims: UniqueClaims, id_: str) -> str:
    with claims.sending(keyed(id_), "work") as holder:
        return holder


def keyed(id_: str) -> Message[Any]:
    return Message("work", "job", (), {}, {"unique_key": "one"}, id_)


def test_of_two_senders_after_an_ended_job_one_holds_the_key(valkey):
    calls, keys, holders = calls_on(valkey), Keys("test-rabbit"), list[str]()
    other = UniqueClaims(calls, keys, Records({"first"}))
    claims = UniqueClaims(calls, keys, Records({"first"}, lambda: holders.append(send(other, "second"))))
    send(claims, "first")

    holders.append(send(claims, "third"))

    assert holders == ["second", "second"]


def test_a_holder_that_ended_meanwhile_is_replaced(valkey):
    calls, keys, ended = calls_on(valkey), Keys("test-rabbit"), {"first"}
    other = UniqueClaims(calls, keys, Records(ended))

    def other_sends_and_ends() -> None:
        send(other, "second")
        ended.add("second")

    claims = UniqueClaims(calls, keys, Records(ended, other_sends_and_ends))
    send(claims, "first")

    assert send(claims, "third") == "third"
    assert send(claims, "fourth") == "third"


def test_a_sender_that_repeats_its_claim_holds_it(valkey):
    claims = UniqueClaims(calls_on(valkey), Keys("test-rabbit"), Records(set()))

    assert [send(claims, "first") for _ in range(2)] == ["first", "first"]


def test_a_send_that_fails_leaves_the_key_to_the_next(rabbit_yard):
    broker, away = rabbit_yard(), rabbit_yard(url="amqp://guest:guest@127.0.0.1:1/")
    job, unsent = (
        dramatiq.actor(lambda: None, broker=each, queue_name="work", actor_name="job", unique_key="one")
        for each in (broker, away)
    )

    with pytest.raises(BrokerUnavailable):
        unsent.send()
    id_ = job.send().message_id

    assert broker.lane_stats("work").waiting == 1
    assert job.send().message_id == id_


def test_a_key_whose_sender_died_is_not_taken_for_a_message(valkey, monkeypatch):
    monkeypatch.setattr(unique_claims, "PATIENCE_S", 0.05)
    monkeypatch.setattr(unique_claims, "UNRECORDED_MS", 300)
    claims = UniqueClaims(calls_on(valkey), Keys("test-rabbit"), Records(set()))
    died = claims.sending(keyed("first"), "work")
    died.__enter__()

    with pytest.raises(BrokerUnavailable, match="message first has that key and may not be sent") as refused:
        send(claims, "second")

    assert refused.value.outcome == "refused"
    wait_for(lambda: wait_for_turn(claims) == "third")


def wait_for_turn(claims: UniqueClaims) -> str:
    with suppress(BrokerUnavailable):
        return send(claims, "third")
    return ""


@pytest.mark.parametrize("policy", [{"unique_until": "started"}, {"unique_for": 1_000}, {"on_duplicate": "delay"}])
def test_an_actor_with_a_policy_of_its_unique_key_is_refused(valkey, policy):
    broker: Any = RabbitBroker("amqp://guest:guest@127.0.0.1:1/", calls_on(valkey), Keys("test-rabbit"))

    with pytest.raises(InvalidOption, match=r"actor job: .*; on RabbitMQ a unique key is held until the job has ended"):
        Actor(lambda: None, broker=broker, actor_name="job", queue_name="work", priority=0, options=policy)

    assert broker.actors == {}
