"""Dramatiq's own middleware, groups and pipelines on our broker."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.composition import group, pipeline
from dramatiq.middleware import (
    AgeLimit,
    Callbacks,
    CurrentMessage,
    GroupCallbacks,
    Middleware,
    Pipelines,
    Retries,
    ShutdownNotifications,
    TimeLimit,
    TimeLimitExceeded,
    default_middleware,
)
from dramatiq.rate_limits.backends import RedisBackend as RateLimiterBackend
from dramatiq.results import ResultFailure, Results
from dramatiq.results.backends import RedisBackend as ResultBackend

from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.connections import connect
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


@pytest.fixture
def results(valkey_url: str) -> Iterator[Results]:
    """Dramatiq's results on the same server."""
    client = connect(valkey_url, profile="blocking")
    yield Results(backend=ResultBackend(client=client, namespace=f"results-{uuid.uuid4().hex[:8]}"))
    client.close()


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


def test_a_time_limit_ends_a_task(build: Build, run_worker: Any) -> None:
    broker = build(TimeLimit(interval=50))
    ended: list[type[BaseException]] = []

    @dramatiq.actor(broker=broker, queue_name="work", time_limit=200)
    def endless() -> None:
        try:
            for _ in range(200):
                time.sleep(0.02)
        except BaseException as error:
            ended.append(type(error))
            raise

    with run_worker(broker=broker):
        endless.send()
        broker.join("work", timeout=60_000)

    assert ended == [TimeLimitExceeded]


def test_a_message_over_its_age_limit_never_runs(build: Build, run_worker: Any) -> None:
    broker = build(AgeLimit())
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", max_age=100)
    def job() -> None:
        runs.append(1)

    job.send_with_options(delay=300)
    with run_worker(broker=broker):
        broker.join("work", timeout=60_000)

    assert runs == []
    assert dead_count(broker) == 1


def test_callbacks_are_sent_on_success_and_on_failure(build: Build, run_worker: Any) -> None:
    broker = build(Callbacks())
    told: list[Any] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def succeeded(message: Any, result: Any) -> None:
        told.append(("succeeded", result))

    @dramatiq.actor(broker=broker, queue_name="work")
    def failed(message: Any, error: Any) -> None:
        told.append(("failed", error["type"]))

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(fails: bool) -> int:
        if fails:
            raise RuntimeError("no")
        return 42

    with run_worker(broker=broker):
        for fails in (False, True):
            job.send_with_options(args=(fails,), on_success=succeeded, on_failure=failed)
        broker.join("work", timeout=60_000)

    assert sorted(told) == [("failed", "RuntimeError"), ("succeeded", 42)]


def test_a_shutdown_is_told_to_who_asks_for_it_and_the_message_runs_again(build: Build, run_worker: Any) -> None:
    broker = build(ShutdownNotifications(notify_shutdown=True), Retries(min_backoff=1, max_backoff=1))
    started, ended = threading.Event(), []

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=1)
    def long() -> None:
        started.set()
        if ended:
            return
        try:
            for _ in range(200):
                time.sleep(0.02)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    long.send()
    with run_worker(broker=broker):
        assert started.wait(30)
    started.clear()
    with run_worker(broker=broker):
        broker.join("work", timeout=60_000)

    assert ended == ["Shutdown"]
    assert started.is_set()


def test_a_pipeline_hands_each_result_on(build: Build, run_worker: Any, results: Results) -> None:
    broker = build(Pipelines(), results)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def double(number: int) -> int:
        return 2 * number

    steps = pipeline([double.message(1), double.message(), double.message()], broker=broker)
    with run_worker(broker=broker):
        steps.run()
        found = steps.get_result(block=True, timeout=60_000)
        all_found = list(steps.get_results(block=True, timeout=60_000))

    assert (found, all_found) == (8, [2, 4, 8])


def test_a_pipeline_with_a_delay_waits(build: Build, run_worker: Any, results: Results) -> None:
    broker = build(Pipelines(), results)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def now_s(*before: float) -> float:
        return time.time()

    steps = pipeline([now_s.message(), now_s.message()], broker=broker)
    with run_worker(broker=broker):
        sent_s = time.time()
        steps.run(delay=300)
        found = list(steps.get_results(block=True, timeout=60_000))

    assert found[0] - sent_s >= 0.299


def test_a_group_is_waited_for_and_its_results_come_in_order(build: Build, run_worker: Any, results: Results) -> None:
    broker = build(results)

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def square(number: int) -> int:
        return number * number

    jobs = group((square.message(number) for number in range(30)), broker=broker)
    with run_worker(broker=broker):
        jobs.run()
        jobs.wait(timeout=60_000)
        found = list(jobs.get_results())

    assert jobs.completed
    assert found == [number * number for number in range(30)]


def test_a_group_of_pipelines_ends_in_one_callback(
    build: Build, run_worker: Any, results: Results, valkey: redis.Redis
) -> None:
    broker = build(results, Pipelines(), GroupCallbacks(RateLimiterBackend(client=valkey)))
    finished: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def add_one(number: int) -> int:
        return number + 1

    @dramatiq.actor(broker=broker, queue_name="work")
    def finish() -> None:
        finished.append(1)

    jobs = group((add_one.message(number) | add_one.message() for number in range(5)), broker=broker)
    jobs.add_completion_callback(finish.message())
    with run_worker(broker=broker):
        jobs.run()
        found = list(jobs.get_results(block=True, timeout=60_000))
        broker.join("work", timeout=60_000)

    assert found == [2, 3, 4, 5, 6]
    assert finished == [1]


def test_a_failure_is_a_result_as_well(build: Build, run_worker: Any, results: Results) -> None:
    broker = build(results, Retries(max_retries=0))

    @dramatiq.actor(broker=broker, queue_name="work", store_results=True)
    def broken() -> None:
        raise RuntimeError("no")

    with run_worker(broker=broker):
        sent = broken.send()
        with pytest.raises(ResultFailure, match="no"):
            sent.get_result(backend=results.backend, block=True, timeout=60_000)
