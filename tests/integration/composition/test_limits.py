"""``dramatiq.rate_limits`` on the broker's client, and named locks."""

import signal
import subprocess
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import dramatiq
import pytest
from dramatiq import rate_limits

from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores import limit_counts
from switchyard.broker.stores.limit_counts import CHANGE, RELEASE, LimitCounts, TaskLock
from switchyard.limits import lock, rate_limiter_backend
from switchyard.middleware.errors import LockTaken
from tests.waiting import wait_for


@pytest.fixture
def backend(broker) -> rate_limits.RateLimiterBackend:
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


def test_a_concurrent_limiter_lets_so_many_in_at_once(backend, key):
    limiter = rate_limits.ConcurrentRateLimiter(backend, key, limit=2)
    with limiter.acquire(), limiter.acquire():
        with pytest.raises(rate_limits.RateLimitExceeded), limiter.acquire():
            pass
        inside = acquired(limiter, 1)

    assert inside == [False]
    assert acquired(limiter, 3) == [True, True, True]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(rate_limits.BucketRateLimiter, {"bucket": 3_600_000}), (rate_limits.WindowRateLimiter, {"window": 600})],
)
def test_a_limiter_lets_so_many_in(backend, key, kind, options):
    limiter = kind(backend, f"{key}@mail.example", limit=3, **options)

    assert acquired(limiter, 5) == [True, True, True, False, False]


def test_a_barrier_opens_for_all_when_the_last_has_come(backend, key):
    barrier = rate_limits.Barrier(backend, key, ttl=60_000)
    assert barrier.create(3)
    assert not barrier.create(9)

    with ThreadPoolExecutor(3) as pool:
        passed = list(pool.map(lambda _: barrier.wait(timeout=60_000), range(3)))

    assert passed == [True, True, True]


def test_counters_share_a_slot_and_expire(broker, valkey, key):
    acquired(rate_limits.WindowRateLimiter(rate_limiter_backend(), key, limit=3, window=60), 1)
    acquired(rate_limits.ConcurrentRateLimiter(rate_limiter_backend(), key, limit=3, ttl=5_000), 1)

    found = [bytes(name).decode() for name in valkey.keys("*:limit:*")]
    assert found
    assert all(name.startswith(f"{broker.keys.prefix}:limit:{{{key}}}:") for name in found)
    assert all(0 < valkey.pttl(name) <= 60_000 for name in found)


def test_a_change_whose_answer_was_lost_happens_once(valkey, broker, key):
    class Repeating(RedisCalls):
        """Calls whose first answer is lost."""

        def call(self, operation: Any, *args: Any, **options: Any) -> Any:
            if operation is CHANGE:
                super().call(operation, *args, **options)
            return super().call(operation, *args, **options)

    calls = Repeating(valkey)
    limiter = rate_limits.ConcurrentRateLimiter(LimitCounts(lambda: (calls, broker.keys)), key, limit=2)

    with limiter.acquire(), limiter.acquire():
        assert acquired(limiter, 1) == [False]
    assert int(valkey.get(broker.keys.limit(key)) or 0) == 0


def test_many_threads_never_exceed_a_limit(backend, key):
    limiter = rate_limits.ConcurrentRateLimiter(backend, key, limit=3)
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


def test_an_actor_that_exceeds_a_limit_is_retried(broker, run_worker, key):
    limiter = rate_limits.ConcurrentRateLimiter(rate_limiter_backend(), key, limit=1)
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


HOLDER = """
import sys, threading
import django
django.setup()
import dramatiq
from dramatiq import Worker
from switchyard.broker.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.limits import lock
from switchyard.wiring import build_yard
from tests.factories.yards import small_yard

broker = build_yard(small_yard(), connect(sys.argv[1]), Keys(sys.argv[2]))
dramatiq.set_broker(broker)

@dramatiq.actor(queue_name="work")
def hold(key):
    with lock(key, expiry_s=2) as held:
        print(held.number, flush=True)
        threading.Event().wait()

hold.send(sys.argv[3])
Worker(broker, worker_threads=1).start()
threading.Event().wait()
"""


def left_ms(broker: RedisBroker, key: str) -> int:
    return int(broker.client.pttl(broker.keys.task_lock(key)[0]))


def test_one_at_a_time_holds_a_lock_and_numbers_grow(broker, key):
    inside, numbers, most = 0, [], 0

    def work(_: int) -> None:
        nonlocal inside, most
        for _ in range(10):
            with lock(key, wait_s=60) as held:
                inside += 1
                most = max(most, inside)
                numbers.append(held.number)
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert (most, len(numbers)) == (1, 40)
    assert numbers == sorted(set(numbers))


def test_a_lock_is_refused_at_once_and_has_a_number_above_a_forgotten_one(broker, key):
    with lock(key) as first:
        with pytest.raises(LockTaken, match="another task"), lock(key):
            pass
        assert 0 < left_ms(broker, key) <= 15_000
    broker.client.delete(broker.keys.task_lock(key)[1])
    # It is forgotten hours later.
    wait_for(lambda: (now := broker.client.time())[0] * 1_000 + now[1] // 1_000 > first.number)

    with lock(key) as second:
        assert second.number > first.number
    assert left_ms(broker, key) == -2


@pytest.mark.parametrize("bad", ["", "a{b}", "x" * 201, "a\n", 5])
def test_a_key_that_cannot_be_used_is_refused(broker, bad):
    with pytest.raises(ValueError, match="printable"), lock(bad):
        pass
    with pytest.raises(ValueError, match="write seconds, at least 0 and 1"), lock("key", expiry_s=float("nan")):
        pass


def test_a_holder_that_was_suspended_for_too_long_learns_that_it_has_lost(broker, key):
    calls = facilities().records.calls
    ours, theirs = (TaskLock(calls, broker.keys, key, lease_ms=1) for _ in range(2))
    assert ours.acquire()
    wait_for(lambda: left_ms(broker, key) == -2)
    ours.keep()  # nobody has had it since
    assert not ours.lost
    wait_for(lambda: left_ms(broker, key) == -2)
    assert theirs.acquire()
    assert theirs.release() or left_ms(broker, key) == -2

    ours.keep()

    assert ours.lost
    assert theirs.number > ours.number


def test_a_renewal_on_its_way_as_the_block_ends_does_not_acquire_the_lock_again(broker, key, caplog, monkeypatch):
    calls = facilities().records.calls
    held = TaskLock(calls, broker.keys, key, lease_ms=60_000)
    assert held.acquire()
    monkeypatch.setattr(limit_counts, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + 30))
    call = calls.call

    def overtaken(*words: Any) -> Any:
        monkeypatch.setattr(calls, "call", call)
        assert held.release()
        return call(*words)

    monkeypatch.setattr(calls, "call", overtaken)
    held.keep()

    assert left_ms(broker, key) == -2
    assert not held.lost
    assert not caplog.records


def test_a_task_that_is_refused_runs_again_without_an_attempt(broker, run_worker, key):
    done, records = [], facilities().records

    @dramatiq.actor(queue_name="work", max_retries=0)
    def alone(job_id: str) -> None:
        # Long enough for its start to be recorded: it does not run any more once it was refused.
        wait_for(lambda: getattr(records.read(job_id), "state", "") == "running")
        with lock(key):
            done.append(key)

    with lock(key, expiry_s=120), run_worker(broker=broker):  # nothing renews it here
        job_id = str(uuid.uuid4())
        broker.enqueue(alone.message(job_id).copy(message_id=job_id))

        def waits() -> bool:
            found = records.read(job_id)
            known = found is not None and (found.state, found.reason, found.attempts) == ("scheduled", "lock", 0)
            return known and found.next_attempt_at is not None

        wait_for(waits)
        assert not done
    family, lane = broker.lane("work")
    wait_for(lambda: float(family.calls.command("ZSCORE", family.keys.due(lane), job_id)) <= now_ms())
    earlier = broker.enqueue(alone.message(str(uuid.uuid4())))
    family.join("other/live")
    [grant] = family.fetch("other/live", 1, request=1).grants
    assert str(grant.lease.id, "ascii") == earlier.message_id
    found = records.read(job_id)
    assert (found.state, found.reason, found.attempts) == ("queued", None, 0)
    family.ack("other/live", [grant.lease])
    with run_worker(broker=broker):
        wait_for(lambda: done)
        wait_for(lambda: getattr(records.read(job_id), "state", "") == "succeeded")
    assert records.read(job_id).attempts == 1


def test_a_worker_renews_the_lock_of_a_task_that_runs(broker, run_worker, key):
    go_on, seen = threading.Event(), []

    @dramatiq.actor(queue_name="work")
    def slow() -> None:
        with lock(key, expiry_s=2) as held:
            seen.append(held)
            go_on.wait(60)

    with run_worker(broker=broker):
        slow.send()
        for _ in range(2):
            wait_for(lambda: 0 < left_ms(broker, key) < 1_300)
            wait_for(lambda: left_ms(broker, key) > 1_500)
        assert not seen[0].lost
        go_on.set()
        wait_for(lambda: left_ms(broker, key) == -2)
    assert not facilities().barrier.locks


def test_a_lock_that_its_task_dropped_is_renewed_no_more(broker, key):
    barrier = facilities().barrier
    dropped = TaskLock(facilities().records.calls, broker.keys, key, lease_ms=1_000)
    assert dropped.acquire()
    barrier.locks[id(dropped)] = dropped

    del dropped

    assert not barrier.locks


def test_the_lock_of_a_killed_worker_goes_to_the_next(broker, valkey_url, key):
    script = [sys.executable, "-c", HOLDER, valkey_url, broker.keys.prefix, key]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as holder:
        number = int(holder.stdout.readline())
        with pytest.raises(LockTaken), lock(key, wait_s=3):  # longer than it lasts without its worker
            pass
        holder.send_signal(signal.SIGKILL)

        with lock(key, wait_s=60) as held:
            assert held.number > number
            # A release that the killed one may still send changes nothing.
            keys = broker.keys.task_lock(key)
            assert facilities().records.calls.call(RELEASE, [keys[0]], ["a token of the killed one"]) == 0
            assert left_ms(broker, key) > 0


def test_a_test_in_memory_has_locks(switchyard_broker, key):
    with lock(key) as first, pytest.raises(LockTaken), lock(key):
        pass
    with lock(key) as second:
        assert second.number > first.number
