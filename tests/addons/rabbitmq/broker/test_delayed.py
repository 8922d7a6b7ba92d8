"""Delayed messages on RabbitMQ: none keeps another one from its time, is lost, or is late by a wrong clock."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard.addons.rabbitmq import unique_claims
from switchyard.broker.clock import CLOCK
from switchyard.broker.errors import BrokerRefused, BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.queue.administration import DepthLimits
from switchyard.broker.stores.limit_counts import Lock
from switchyard.middleware.clock_comparison import compare_clocks
from tests.waiting import wait_for


class RefusesNine(Middleware):
    """Refuses a job once its delay is over."""

    def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
        if message.args == (9,) and not delay:
            raise MiddlewareError("no")


def job_of(broker: Any, ran: list[int]) -> Any:
    return dramatiq.actor(lambda n: ran.append(n), broker=broker, queue_name="work", actor_name="job")


def test_a_refused_one_is_kept_and_the_next_runs(rabbit_yard, run_worker):
    broker, ran = rabbit_yard(), list[int]()
    job = job_of(broker, ran)
    broker.add_middleware(RefusesNine())

    with run_worker(broker=broker):
        job.send_with_options(args=(9,), delay=100)
        job.send_with_options(args=(8,), delay=200)
        wait_for(lambda: ran == [8])
        wait_for(lambda: broker.mover.delays.count(["work"]) == [1])
        wait_for(lambda: not any(consumer.outgoing.unacked for consumer in broker._consumers))


def test_a_full_queue_takes_what_is_due(rabbit_yard, run_worker):
    broker, ran, go_on = rabbit_yard(), list[int](), threading.Event()

    def run(number: int) -> None:
        ran.append(number)
        go_on.wait(60)

    job = dramatiq.actor(run, broker=broker, queue_name="work", actor_name="job")
    for number in range(9):
        job.send(number)
    job.send_with_options(args=(9,), delay=200)
    broker.limits = DepthLimits({"work": 3})

    with run_worker(broker=broker, threads=1):
        consumers = wait_for(lambda: len(broker._consumers) >= 4 and list(broker._consumers))
        wait_for(lambda: broker.lane_stats("work").waiting + len(broker.in_flight) == 10)
        assert broker._consumers == consumers
        go_on.set()
        wait_for(lambda: sorted(ran) == list(range(10)))


def test_what_is_due_soon_passes_what_is_due_late(rabbit_yard, run_worker, monkeypatch):
    monkeypatch.setattr("dramatiq.worker.DELAY_QUEUE_PREFETCH", 4)
    broker, ran = rabbit_yard(), list[int]()
    job = job_of(broker, ran)
    for number in range(10):
        job.send_with_options(args=(number,), delay=600_000 + number)
    job.send_with_options(args=(99,), delay=500)

    with run_worker(broker=broker):
        wait_for(lambda: ran == [99])
        wait_for(
            lambda: broker.lane_stats("work").scheduled >= 7
        )  # kept in Redis; the server does not count what is held


Build = Callable[..., Any]


class Refused(MiddlewareError):
    """A middleware's own error."""


class Refuses:
    """``emit_before`` of a broker that raises an error when messages of one actor are enqueued."""

    def __init__(self, broker: Any, error: Exception) -> None:
        self.before, self.error, self.tries = broker.emit_before, error, 0

    def __call__(self, signal: str, *args: Any, **kwargs: Any) -> None:
        self.before(signal, *args, **kwargs)
        if signal == "enqueue" and args[0].actor_name == "refused":
            self.tries += 1
            raise self.error


def keep(broker: Any, *actors: str) -> None:
    """Store messages of actors with a long delay, due in this order."""
    for number, actor in enumerate(actors):
        broker.mover.delays.add("work", f"{actor}-{number}", broker.body_of(message(actor)), delay_ms=number - 1_000)


def message(actor: str) -> dramatiq.Message[Any]:
    return dramatiq.Message("work", actor, (), {}, {})


@pytest.mark.parametrize("error", [Refused("no"), BrokerRefused("a declaration", "406")], ids=["middleware", "server"])
def test_a_refused_message_is_kept_and_the_others_are_moved(rabbit_yard, caplog, monkeypatch, error):
    broker = rabbit_yard()
    monkeypatch.setattr(unique_claims, "REFUSED_AGAIN_MS", 0)
    keep(broker, "refused", "job")
    broker.emit_before = refuses = Refuses(broker, error)

    moved = [broker.mover.move() for _ in range(2)]

    assert (moved, refuses.tries) == ([1, 0], 2)
    assert broker.mover.delays.count(["work"]) == [1]
    wait_for(lambda: broker.lane_stats("work").waiting == 1)
    told = [record.getMessage() for record in caplog.records if "refused-0" in record.getMessage()]
    assert len(told) == 1 and str(error) in told[0]


def test_a_hundred_refused_messages_leave_room_for_the_next(rabbit_yard):
    broker = rabbit_yard()
    broker.emit_before = Refuses(broker, Refused("no"))
    keep(broker, *["refused"] * unique_claims.AT_ONCE, "job")

    assert [broker.mover.move() for _ in range(2)] == [0, 1]
    assert broker.mover.delays.count(["work"]) == [unique_claims.AT_ONCE]


def test_a_queue_that_does_not_answer_keeps_back_its_own_messages_alone(rabbit_yard):
    broker = rabbit_yard()
    keep(broker, "refused", "job", "refused")
    broker.mover.delays.add("work-retry", "other-1", broker.body_of(message("other")), delay_ms=-1)
    broker.emit_before = refuses = Refuses(broker, BrokerUnavailable("a publish", "away"))

    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            broker.mover.move()

    assert broker.mover.delays.count(["work", "work-retry"]) == [3, 0]
    assert refuses.tries == 2
    broker.emit_before = refuses.before
    assert broker.mover.move() == 3


def test_what_is_no_message_is_quarantined(rabbit_yard):
    broker = rabbit_yard()
    broker.mover.delays.add("work-retry", "broken", b"\xff{", delay_ms=-1_000)

    assert broker.mover.move() == 0

    [found] = broker.unreadable.page("work", cursor=0, limit=10).items
    assert (found.id, found.queue, found.raw) == ("broken", "work-retry", b"\xff{")
    assert broker.mover.delays.count(["work-retry"]) == [0]


def test_a_slow_pass_renews_its_lock_and_ends_once_another_process_holds_it(rabbit_yard, monkeypatch):
    broker, sent = rabbit_yard(), list[str]()
    monkeypatch.setattr(unique_claims, "RENEW_S", 0.0)
    keep(broker, "job", "job", "job")
    other = Lock(broker.mover.delays._calls, broker.keys, "long-delays", lease_ms=60_000)

    def enqueue(message: dramatiq.Message[Any]) -> None:
        sent.append(message.message_id)
        if len(sent) == 1:
            assert not other.acquire()
        else:
            broker.mover._lock.release()
            assert other.acquire()

    monkeypatch.setattr(broker.mover, "_enqueue", enqueue)

    assert broker.mover.move() == 2
    assert broker.mover.delays.count(["work"]) == [1]


DELAY_MS = 2_000


@pytest.fixture(autouse=True)
def unmeasured() -> Iterator[None]:
    CLOCK.forget()
    yield
    CLOCK.forget()


@contextmanager
def on_host(broker: Any, *, off_s: int) -> Iterator[None]:
    """Make this process one of another host, which has measured nothing yet."""
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=off_s), tick=True):
        CLOCK.forget()
        facilities(broker).clock._due_s = 0.0
        yield


@pytest.mark.parametrize(("sender_s", "worker_s"), [(61, 0), (-61, 0), (0, 61), (0, -61), (61, -61)])
def test_a_delayed_job_runs_in_time(rabbit_yard, run_worker, sender_s, worker_s):
    broker, ran_s = rabbit_yard(), list[float]()
    compare_clocks(broker)
    job = dramatiq.actor(lambda: ran_s.append(time.perf_counter()), broker=broker, queue_name="work", actor_name="job")

    with on_host(broker, off_s=sender_s):
        sent_s = time.perf_counter()
        job.send_with_options(delay=DELAY_MS)
    with on_host(broker, off_s=worker_s), run_worker(broker=broker):
        wait_for(lambda: ran_s)

    # Differences of less than a second are tolerated.
    assert ran_s[0] - sent_s > DELAY_MS / 1000 - 1
