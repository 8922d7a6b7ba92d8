"""``dramatiq.rate_limits`` on the broker's client."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.rate_limits import (
    Barrier,
    BucketRateLimiter,
    ConcurrentRateLimiter,
    RateLimiterBackend,
    RateLimitExceeded,
    WindowRateLimiter,
)

from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.limit_counts import CHANGE, LimitCounts
from switchyard.limits import rate_limiter_backend
from tests.waiting import wait_for

pytestmark = pytest.mark.usefixtures("broker")


@pytest.fixture
def backend() -> RateLimiterBackend:
    return rate_limiter_backend()


@pytest.fixture
def key() -> str:
    return f"limit-{uuid.uuid4().hex[:8]}"


def acquired(limiter: Any, times: int) -> list[bool]:
    found = []
    for _ in range(times):
        with limiter.acquire(raise_on_failure=False) as one:
            found.append(bool(one))
    return found


def test_a_concurrent_limiter_lets_so_many_in_at_once(backend: RateLimiterBackend, key: str) -> None:
    limiter = ConcurrentRateLimiter(backend, key, limit=2)
    with limiter.acquire(), limiter.acquire():
        with pytest.raises(RateLimitExceeded), limiter.acquire():
            pass
        inside = acquired(limiter, 1)

    assert inside == [False]
    assert acquired(limiter, 3) == [True, True, True]


@pytest.mark.parametrize(
    ("kind", "options"), [(BucketRateLimiter, {"bucket": 3_600_000}), (WindowRateLimiter, {"window": 600})]
)
def test_a_limiter_lets_so_many_in(backend: RateLimiterBackend, key: str, kind: Any, options: dict[str, int]) -> None:
    limiter = kind(backend, f"{key}@mail.example", limit=3, **options)

    assert acquired(limiter, 5) == [True, True, True, False, False]


def test_a_barrier_opens_for_all_when_the_last_has_come(backend: RateLimiterBackend, key: str) -> None:
    barrier = Barrier(backend, key, ttl=60_000)
    assert barrier.create(3)
    assert not barrier.create(9)

    with ThreadPoolExecutor(3) as pool:
        passed = list(pool.map(lambda _: barrier.wait(timeout=60_000), range(3)))

    assert passed == [True, True, True]


def test_counters_share_a_slot_and_expire(broker: RedisBroker, valkey: redis.Redis, key: str) -> None:
    acquired(WindowRateLimiter(rate_limiter_backend(), key, limit=3, window=60), 1)
    acquired(ConcurrentRateLimiter(rate_limiter_backend(), key, limit=3, ttl=5_000), 1)

    found = [bytes(name).decode() for name in valkey.keys("*:limit:*")]
    assert found
    assert all(name.startswith(f"{broker.keys.prefix}:limit:{{{key}}}:") for name in found)
    assert all(0 < valkey.pttl(name) <= 60_000 for name in found)


def test_a_change_whose_answer_was_lost_happens_once(valkey: redis.Redis, broker: RedisBroker, key: str) -> None:
    class Repeating(RedisCalls):
        """Calls whose first answer is lost."""

        def call(self, operation: Any, *args: Any, **options: Any) -> Any:
            if operation is CHANGE:
                super().call(operation, *args, **options)
            return super().call(operation, *args, **options)

    calls = Repeating(valkey)
    limiter = ConcurrentRateLimiter(LimitCounts(lambda: (calls, broker.keys)), key, limit=2)

    with limiter.acquire(), limiter.acquire():
        assert acquired(limiter, 1) == [False]
    assert int(valkey.get(broker.keys.limit(key)) or 0) == 0


def test_many_threads_never_exceed_a_limit(key: str) -> None:
    limiter = ConcurrentRateLimiter(rate_limiter_backend(), key, limit=3)
    now, most, lock = 0, 0, threading.Lock()

    def work(_: int) -> None:
        nonlocal now, most
        for _ in range(40):
            with limiter.acquire(raise_on_failure=False) as inside:
                if inside:
                    with lock:
                        now += 1
                        most = max(most, now)
                    with lock:
                        now -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert 0 < most <= 3
    assert acquired(limiter, 1) == [True]


def test_an_actor_that_exceeds_a_limit_is_retried(broker: RedisBroker, run_worker: Any, key: str) -> None:
    limiter = ConcurrentRateLimiter(rate_limiter_backend(), key, limit=1)
    started, done = threading.Event(), []

    @dramatiq.actor(queue_name="work", max_retries=100, backoff=lambda retry: 20)
    def alone(number: int) -> None:
        with limiter.acquire():
            started.set()
            done.append(number)

    with limiter.acquire(), run_worker(broker=broker):
        alone.send(1)
        retried = broker.families["work"].keys
        wait_for(lambda: broker.client.zcard(retried.due("retry")) or done)
        before = list(done)
    with run_worker(broker=broker):
        wait_for(lambda: done)

    assert (before, done) == ([], [1])
