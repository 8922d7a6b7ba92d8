"""Queues of our broker by themselves or with middleware of Dramatiq: what goes in, its order, and what is refused."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.errors import QueueJoinTimeout, QueueNotFound
from dramatiq.message import Message
from dramatiq.middleware import CurrentMessage, Middleware, Retries, default_middleware

from switchyard.broker.enqueue_many import messages
from switchyard.broker.errors import BrokerUnavailable, InvalidMessageId, PayloadTooLarge, QueueFull, UnencodablePayload
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import AT_ONCE, Entry
from switchyard.broker.queue.unroutable import UnroutableLane
from switchyard.broker.redis_broker import RedisBroker
from switchyard.middleware.metrics import Metrics
from tests.waiting import wait_for

Build = Callable[..., RedisBroker]


@pytest.fixture
def build(valkey: redis.Redis) -> Iterator[Build]:
    """Build a broker with the queue ``work``, keys of its own, and these middleware; it is Dramatiq's global one."""
    built: list[RedisBroker] = []
    before = dramatiq.get_broker()

    def make(*middleware: Middleware, **options: Any) -> RedisBroker:
        broker = RedisBroker(valkey, Keys(f"test-{uuid.uuid4().hex[:8]}"), middleware=list(middleware), **options)
        broker.declare_queue("work")
        built.append(broker)
        dramatiq.set_broker(broker)
        return broker

    yield make
    dramatiq.set_broker(before)
    for broker in built:
        broker.close()


class Reports(Middleware):
    """Notes ids of what is enqueued and asked to stop, and the queues of late ends."""

    def __init__(self) -> None:
        self.enqueued: list[str] = []
        self.stopped: list[str] = []
        self.lost: list[str] = []

    def after_enqueue(self, broker: Any, message: Message[Any], delay: int | None) -> None:
        self.enqueued.append(message.message_id)

    def after_request_cancellation(self, broker: Any, held: HeldMessage) -> None:
        self.stopped.append(held.message_id)

    def after_stale_end(self, broker: Any, queue: str) -> None:
        self.lost.append(queue)


def recorded(broker: RedisBroker, **options: Any) -> tuple[Any, list[int]]:
    """Declare an actor, and return it with the arguments of its runs to come."""
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", **options)
    def job(number: int = 0) -> None:
        runs.append(number)

    return job, runs


def holding(broker: RedisBroker, *, prefetch: int = 1) -> tuple[Any, HeldMessage]:
    """Return a consumer and the message that it holds."""
    consumer = broker.consume("work", prefetch=prefetch, timeout=30_000)
    held = next(consumer)
    assert isinstance(held, HeldMessage)
    return consumer, held


def message(number: int = 0, *, queue: str = "work", id_: str | None = None, **options: Any) -> Message[Any]:
    named = {"message_id": id_} if id_ is not None else {}
    return Message(queue, "job", (number,), {}, options, **named)


def numbers(broker: RedisBroker, count: int) -> list[int]:
    """Return the arguments of the next messages, in their order."""
    consumer = broker.consume("work", prefetch=count, timeout=30_000)
    found = [next(consumer) for _ in range(count)]
    return [message.args[0] for message in found if message is not None]


def depth(broker: RedisBroker) -> int:
    return int(broker.client.hlen(broker.families["work"].keys.bodies))


@pytest.mark.parametrize("with_actor", [True, False])
def test_a_lower_priority_number_goes_first(build, with_actor):
    broker = build()
    priority = {"low": 5, "normal": 0, "high": -5}
    for number, name in enumerate(("low", "normal", "high", "low", "normal", "high")):
        if with_actor:
            if name not in broker.actors:
                dramatiq.actor(lambda number: None, broker=broker, queue_name="work", actor_name=name,
                               priority=priority[name])  # fmt: skip
            broker.actors[name].send(number)
        else:
            broker.enqueue(message(number, priority=priority[name]))

    assert numbers(broker, 6) == [2, 5, 1, 4, 0, 3]


def test_many_are_enqueued_in_their_order_with_each_ones_id(build):
    broker = build()
    sent = [message(number) for number in range(1_200)]

    assert [answer.message_id for answer in broker.enqueue_many(sent)] == [one.message_id for one in sent]
    assert depth(broker) == 1_200
    assert numbers(broker, 50) == list(range(50))


def test_a_tuple_of_more_than_one_call_takes_is_enqueued_whole(build):
    broker = build()
    ids = [f"message-{number}" for number in range(AT_ONCE + 1)]

    assert broker.families["work"].enqueue(tuple(Entry(id_, b"{}") for id_ in ids)) == ids
    assert depth(broker) == len(ids)


def test_the_same_id_is_enqueued_once_however_often_it_is_sent(build, run_worker):
    broker = build()
    _, runs = recorded(broker)
    once = message(id_="once")
    broker.enqueue(once)
    broker.enqueue_many([once, once])
    with run_worker(broker=broker):
        broker.join("work", timeout=60_000)
        broker.enqueue(once)
        broker.join("work", timeout=60_000)

    assert runs == [0]


def test_a_queue_that_nobody_declared_is_named(build):
    broker = build()

    for act in (
        lambda: broker.enqueue(message(queue="elsewhere")),
        lambda: broker.enqueue_many([message(queue="elsewhere")]),
        lambda: broker.consume("elsewhere"),
        lambda: broker.flush("elsewhere"),
        lambda: broker.join("elsewhere"),
    ):
        with pytest.raises(QueueNotFound, match="elsewhere"):
            act()


def test_what_is_no_message_is_refused_with_the_call_that_makes_one(build):
    broker = build()

    @dramatiq.actor(broker=broker, queue_name="work")
    def add(a: int, b: int) -> int:
        return a + b

    with pytest.raises(TypeError, match=r"an int is not a message; write actor\.message\("):
        dramatiq.group([add(1, 2)], broker=broker).run()
    with pytest.raises(TypeError, match=r"an Actor is not a message; write add\.message\("):
        broker.enqueue(add)
    with pytest.raises(TypeError, match=r"an Actor is not a message; write add\.message\("):
        broker.enqueue_many([add.message(1, 2), add])
    for call, what in ((7, "an int"), ("7", "a str"), ({"a": 7}, "a dict")):
        with pytest.raises(TypeError, match=rf"^actor add: a call is {what}; write a tuple of its arguments"):
            broker.enqueue_many(messages(add, [(1, 2), call]))
    assert depth(broker) == 0


RESERVED = ["#", "a:events", "a:progress", "result:events", "events", "progress", ":events"]


@pytest.mark.parametrize("id_", ["", " ", "a b", "ä", "x" * 201, "a\nb", "a\0", 7, *RESERVED])
def test_an_id_that_can_be_no_key_is_refused(build, id_):
    broker = build()

    with pytest.raises(InvalidMessageId, match="printable ASCII"):
        broker.enqueue(message(id_=id_))
    assert depth(broker) == 0


@pytest.mark.parametrize(
    ("argument", "error"),
    [(float("nan"), UnencodablePayload), (object(), UnencodablePayload), ("x" * 2**20, PayloadTooLarge)],
    ids=["nan", "object", "long"],
)
def test_what_cannot_travel_is_refused_before_it_is_sent(build, argument, error):
    broker = build()

    with pytest.raises(error, match="actor job"):
        broker.enqueue(message(argument))
    assert depth(broker) == 0


def test_a_full_queue_refuses_what_is_new_and_takes_it_when_there_is_room(build, run_worker):
    broker = build(limits={"work": 3})
    first = message(0)
    broker.enqueue_many([first, message(1)])
    broker.enqueue(message(2), delay=60_000)

    with pytest.raises(QueueFull, match="holds 3 messages of at most 3") as refused:
        broker.enqueue(message(3))
    broker.enqueue(first)  # known: not new

    assert (refused.value.queue_name, refused.value.depth, refused.value.limit) == ("work", 3, 3)
    assert numbers(broker, 1) == [0]
    broker.enqueue(message(3))
    assert depth(broker) == 4, "one of them is held, not waiting"


def test_all_or_none_of_what_is_sent_together_goes_into_a_queue_with_too_little_room(build):
    broker = build(limits={"work": 3})

    with pytest.raises(QueueFull):
        broker.enqueue_many([message(number) for number in range(4)])

    assert depth(broker) == 0


def test_a_delayed_message_waits_for_its_time_and_no_longer(build, run_worker, monkeypatch):
    monkeypatch.setattr("switchyard.broker.worker.prefetch.LONGEST_BLOCK_S", 600)  # it is woken when it is due
    monkeypatch.setattr("switchyard.broker.worker.prefetch.SILENT_S", 700.0)
    broker = build()
    started_s: list[float] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        started_s.append(time.monotonic())

    with run_worker(broker=broker):
        sent_s = time.monotonic()
        job.send_with_options(delay=400)
        broker.join("work", timeout=60_000)

    assert started_s[0] - sent_s >= 0.399


def test_delayed_messages_run_in_the_order_they_are_due(build, run_worker):
    broker = build()
    job, runs = recorded(broker)
    base_s = time.monotonic() + 3  # whatever time lies between two sends
    for number, later_s in enumerate((1.2, 0.4, 0.8, 0.0)):
        job.send_with_options(args=(number,), delay=int((base_s + later_s - time.monotonic()) * 1_000))
    with run_worker(broker=broker, threads=1):
        broker.join("work", timeout=60_000)

    assert runs == [3, 1, 2, 0]


def test_flushing_drops_what_waits_is_scheduled_or_held(build):
    broker = build()
    broker.declare_queue("other")
    for number in range(4):
        broker.enqueue(message(number))
    broker.enqueue(message(5), delay=60_000)
    broker.enqueue(message(6, queue="other"))
    consumer = broker.consume("work", timeout=30_000)
    held = next(consumer)
    parked = UnroutableLane(broker.families["work"], "live")
    parked.add("5", '["job", 1, []]')

    broker.flush("work")
    consumer.ack(held)
    consumer.close()

    assert depth(broker) == 0
    assert parked.calls() == []
    assert broker.client.hlen(broker.families["other"].keys.bodies) == 1
    broker.flush_all()
    assert broker.client.hlen(broker.families["other"].keys.bodies) == 0
    broker.enqueue(message(7))
    assert numbers(broker, 1) == [7]


def test_joining_waits_until_all_is_worked_off_and_says_when_it_is_not(build, run_worker):
    broker = build()
    end, done = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job() -> None:
        end.wait(60)
        done.set()

    job.send()
    with run_worker(broker=broker):
        with pytest.raises(QueueJoinTimeout):
            broker.join("work", timeout=150)
        end.set()
        broker.join("work", timeout=60_000)

    assert done.is_set()


def test_a_worker_that_stops_gives_back_what_it_has_not_started(build, run_worker):
    broker = build()
    runs: list[int] = []
    started, end = threading.Event(), threading.Event()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        runs.append(number)
        started.set()
        end.wait(60)

    def end_with(worker: Any) -> None:
        wait_for(lambda: not any(thread.running for thread in worker.workers))
        end.set()

    for number in range(4):
        job.send(number)
    with run_worker(broker=broker, threads=1) as worker:
        assert started.wait(30)
        wait_for(lambda: worker.work_queue.unfinished_tasks >= 2, what="one more fetched than runs")
        threading.Thread(target=end_with, args=(worker,), daemon=True).start()

    assert runs == [0]
    assert numbers(broker, 3) == [1, 2, 3], "in their order"


def test_what_an_actor_raises_stops_neither_worker_nor_queue(build, run_worker):
    broker = build()
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        runs.append(number)
        raise [RuntimeError("no"), SystemExit(), KeyboardInterrupt(), BaseException("no")][number % 4]

    with run_worker(broker=broker, threads=2) as worker:
        for number in range(8):
            job.send(number)
        broker.join("work", timeout=60_000)
        alive = [thread.is_alive() for thread in worker.workers]

    assert sorted(runs) == list(range(8))
    assert all(alive)


def test_who_acknowledges_while_its_worker_listens_says_so_before_it_sends(build):
    said: list[object] = []

    class Hears(Middleware):
        def before_send_acks(self, broker: Any, held: HeldMessage) -> None:
            said.append((held.message_id, depth(broker)))

    broker = build()
    broker.add_middleware(Hears())
    for number in range(2):
        broker.enqueue(message(number, id_=f"m{number}"))
    consumer, first = holding(broker, prefetch=4)
    second = next(consumer)

    consumer.ack(first)
    quiet = list(said)
    consumer._start_listening(1.0)  # from now on it listens
    consumer.ack(second)

    assert quiet == []
    assert said == [("m1", 1)]
    assert depth(broker) == 0
    consumer.close()


def test_a_consumer_that_drains_acknowledges_what_ends_meanwhile(build):
    broker = build()
    broker.enqueue(message(id_="m"))
    consumer, held = holding(broker)
    broker.drain()

    consumer.ack(held)
    waits = depth(broker)

    assert next(consumer) is None
    assert (waits, depth(broker)) == (1, 0)


def test_an_end_that_comes_too_late_is_counted(build):
    broker, metrics = build(), Metrics()
    broker.add_middleware(metrics)

    def stale_ends() -> float:
        # The file of this process's values may hold those of another test.
        return metrics.registry.get_sample_value("switchyard_stale_ends_total", {"queue": "work"}) or 0.0

    metrics.stale.labels("work")  # reads the value that another test left in the file of this process
    before = stale_ends()
    broker.enqueue(message(id_="m"))
    consumer, held = holding(broker)
    other = "other/live"
    held.family.join(other)

    held.family.reclaim(held.lease.owner)
    held.family.fetch(other, 1, request=1)
    consumer.ack(held)
    consumer.close()

    assert stale_ends() == before + 1
    assert len(held.family.held(other)) == 1, "it is the other one's still"


@pytest.mark.parametrize("rejected", [False, True])
def test_a_message_that_was_lost_meanwhile_is_reported_as_lost_and_not_as_enqueued_anew(build, rejected):
    broker, reports = build(), Reports()
    broker.enqueue(message(id_="m"))
    broker.add_middleware(reports)
    consumer, held = holding(broker)
    if not rejected:
        broker.emit_before("process_message", held)
    held.family.reclaim(held.lease.owner)

    consumer.nack(held) if rejected else broker.enqueue(held.copy(), delay=60_000)

    assert (reports.enqueued, reports.lost) == ([], ["work"])
    assert held.moved
    assert broker.client.llen(held.family.keys.dead) == 0


def test_messages_that_are_here_do_not_wait_for_a_slow_server(build, monkeypatch):
    broker = build()
    for number in range(2):
        broker.enqueue(message(number))
    consumer, _ = holding(broker, prefetch=2)

    def away(in_flight: Any) -> None:
        raise BrokerUnavailable("HMGET", "timed out")

    monkeypatch.setattr(broker.cancellations, "run", away)

    assert next(consumer) is not None


def test_cancellations_are_read_by_one_thread_at_a_time(build, monkeypatch):
    monkeypatch.setattr("switchyard.broker.worker.prefetch.POLL_CANCELLATIONS_S", 0.0)
    broker = build()
    broker.enqueue(message(id_="m"))
    holding(broker)
    entered, go_on = threading.Event(), threading.Event()
    reads: list[list[str]] = []
    reports = Reports()

    def read(ids: list[str]) -> tuple[set[str], dict[str, int]]:
        reads.append(ids)
        entered.set()
        assert go_on.wait(30)
        return set(ids), {}

    broker.add_middleware(reports)
    monkeypatch.setattr(broker.families["work"], "read_acts", read)
    broker.cancellations.run(broker.in_flight)  # the next one is due
    thread = threading.Thread(target=broker.cancellations.run, args=(broker.in_flight,), daemon=True)
    thread.start()
    assert entered.wait(30)
    second = threading.Thread(target=broker.cancellations.run, args=(broker.in_flight,), daemon=True)
    second.start()
    second.join(1)
    while_one_reads = len(reads)
    go_on.set()
    thread.join(30)
    second.join(30)

    assert (while_one_reads, reports.stopped) == (1, ["m"])


def test_no_cancellation_is_read_while_the_first_message_begins(build, monkeypatch):
    monkeypatch.setattr("switchyard.broker.worker.prefetch.POLL_CANCELLATIONS_S", 0.0)
    broker = build()
    reads: list[list[str]] = []
    consumer = broker.consume("work", prefetch=1, timeout=100)
    monkeypatch.setattr(broker.families["work"], "read_acts", lambda ids: reads.append(ids) or (set(), {}))

    for number in range(3):
        broker.cancellations.run(broker.in_flight)
        broker.enqueue(message(id_=f"m-{number}"))
        held = next(consumer)
        assert held is not None
        broker.cancellations.run(broker.in_flight)
        consumer.ack(held)
    while_messages_begin = list(reads)
    broker.enqueue(message(id_="long"))
    next(consumer)
    broker.cancellations.run(broker.in_flight)
    wait_for(lambda: broker.cancellations.run(broker.in_flight) or reads)

    assert while_messages_begin == []
    assert reads[0] == ["long"]


def test_a_broker_that_was_closed_after_a_drain_consumes_again(build):
    broker = build()
    broker.enqueue(message(id_="m"))
    broker.drain()
    broker.close()

    assert holding(broker)[1].message_id == "m"


@pytest.mark.parametrize(("failures", "dead"), [(2, 0), (3, 1)])
def test_dramatiqs_own_retries_repeat_a_message_under_one_id_until_the_dead_list(build, run_worker, failures, dead):
    broker = build(Retries(min_backoff=10, max_backoff=50), CurrentMessage())
    ids: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=2)
    def flaky() -> None:
        current = CurrentMessage.get_current_message()
        ids.append(current.message_id if current else "")
        if len(ids) <= failures:
            raise RuntimeError("not yet")

    with run_worker(broker=broker):
        sent = flaky.send()
        broker.join("work", timeout=60_000)

    assert ids == [sent.message_id] * 3
    assert broker.client.llen(broker.families["work"].keys.dead) == dead


def test_the_default_middleware_runs_as_it_is(build, run_worker):
    broker = build(*(made() for made in default_middleware))
    job, runs = recorded(broker)

    with run_worker(broker=broker):
        for number in range(20):
            job.send(number)
        broker.join("work", timeout=60_000)

    assert sorted(runs) == list(range(20))
