"""Failed messages are retried, dead-lettered or dropped as their options say."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.topology import Yard
from switchyard.middleware.errors import PermanentFailure, RetryLater
from tests.factories.yards import small_yard
from tests.integration.middleware.flaky import runs_until_success
from tests.waiting import wait_for


def test_a_failed_message_is_tried_again_in_the_retry_lane_only(broker, run_worker):
    seen: list[str] = []

    @dramatiq.actor(broker=broker, queue_name="work")
    def flaky() -> None:
        message = dramatiq.middleware.CurrentMessage.get_current_message()
        assert message is not None
        seen.append(message.queue_name)
        if len(seen) < 3:
            raise RuntimeError("not yet")

    with run_worker(broker=broker):
        job_id = flaky.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")

    assert seen == ["work", "work-retry", "work-retry"]
    assert facilities(broker).records.read(job_id).attempts == 3


def test_after_its_retries_a_message_is_one_dead_letter_and_nowhere_else(yard_broker, run_worker):
    broker = yard_broker(small_yard(max_retries=5))

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken(order: int) -> None:
        raise ValueError(f"order {order} cannot be shipped")

    with run_worker(broker=broker):
        job_id = broken.send(7).message_id
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)
        wait_for(lambda: facilities(broker).records.read(job_id).state == "dead")
        wait_for(lambda: facilities(broker).transport.stats("work").retry.running == 0)

    letter = facilities(broker).transport.find_dead_letter("work", job_id)
    stats = facilities(broker).transport.stats("work")
    assert letter is not None
    assert (letter.attempts, letter.reason, letter.exception) == (6, "exhausted", "ValueError")
    assert letter.message["args"] == [7]
    assert "cannot be shipped" in letter.traceback
    assert letter.enqueued_at <= letter.died_at
    assert stats.live.waiting + stats.live.scheduled + stats.retry.waiting + stats.retry.scheduled == 0
    assert stats.quarantined == 0, "Dramatiq keeps a second copy"


def test_a_permanent_failure_skips_its_retries(broker, run_worker):
    runs: list[int] = []

    @dramatiq.actor(broker=broker, queue_name="work", permanent=(KeyError,))
    def declared(kind: str) -> None:
        runs.append(1)
        raise KeyError(kind) if kind == "declared" else PermanentFailure(kind)

    with run_worker(broker=broker):
        ids = [declared.send("declared").message_id, declared.send("raised").message_id]
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 2)

    letters = [facilities(broker).transport.find_dead_letter("work", job_id) for job_id in ids]
    assert [letter.reason for letter in letters if letter] == ["permanent", "permanent"]
    assert len(runs) == 2


def test_retry_after_is_the_least_delay(broker, run_worker):

    @dramatiq.actor(broker=broker, queue_name="work")
    def limited() -> None:
        raise RetryLater(120, "the provider asked for two minutes")

    with run_worker(broker=broker):
        job_id = limited.send().message_id
        record = wait_for(lambda: _retrying(broker, job_id))

    assert 119_000 <= record.next_attempt_at - record.started_at <= 125_000
    assert record.error == {"type": "RetryLater", "message": "the provider asked for two minutes"}


def test_the_record_of_a_job_outlives_the_wait_for_its_retry(broker, run_worker):
    month_ms = 30 * 24 * 3_600_000

    @dramatiq.actor(broker=broker, queue_name="work", backoff=lambda retry: month_ms)
    def patient() -> None:
        raise RuntimeError("not this month")

    with run_worker(broker=broker):
        job_id = patient.send().message_id
        wait_for(lambda: _retrying(broker, job_id))

    record = facilities(broker).records.read(job_id)
    assert record.next_attempt_at > time.time() * 1000 + month_ms - 24 * 3_600_000
    assert broker.client.pttl(broker.keys.queue("work").jobs) == -1, "a record of a job that lives does not expire"


@pytest.mark.parametrize(
    "broken",
    [lambda retry: 1 // 0, lambda retry: "soon", lambda retry: -5, lambda retry: float("nan"), lambda retry: 10**18],
    ids=["raises", "a text", "negative", "no number", "after the year 9999"],
)
@pytest.mark.parametrize("place", ["actor", "queue"])
def test_a_backoff_that_fails_costs_no_retry(yard_broker, run_worker, broken, place):
    yard = small_yard(max_retries=1)
    options: dict[str, Any] = {"backoff": broken}
    if place == "queue":
        queue = replace(yard.queues[0], retry=replace(yard.queues[0].retry, **options))
        yard, options = Yard((queue,), yard.pools), {}
    broker = yard_broker(yard)
    assert runs_until_success(broker, run_worker, **options) == 2


def test_a_permanent_check_that_raises_costs_no_retry(yard_broker, run_worker):
    class Moody(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("not today")

    class Never(Exception, metaclass=Moody):
        pass

    broker = yard_broker(small_yard(max_retries=1))
    assert runs_until_success(broker, run_worker, permanent=(Never,)) == 2


def test_a_hook_that_refuses_a_retry_does_not_lose_the_message(yard_broker, run_worker):
    class RefusesRetries(Middleware):
        def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.options.get("attempts"):
                raise MiddlewareError("no retries on Fridays")

    broker = yard_broker(small_yard(), extra=[RefusesRetries()])

    @dramatiq.actor(broker=broker, queue_name="work")
    def broken() -> None:
        raise RuntimeError("the first failure")

    with run_worker(broker=broker):
        job_id = broken.send().message_id
        wait_for(lambda: facilities(broker).transport.stats("work").dead == 1)

    letter = facilities(broker).transport.find_dead_letter("work", job_id)
    assert letter is not None
    refused = "retry refused (MiddlewareError('no retries on Fridays')): the first failure"
    assert (letter.reason, letter.exception, letter.error) == ("exhausted", "RuntimeError", refused)
    assert facilities(broker).records.read(job_id).error == {"type": "RuntimeError", "message": refused}


def test_what_other_hooks_raise_neither_fails_nor_loses_a_job(yard_broker, run_worker):
    class Clumsy(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise RuntimeError("dropped by Dramatiq")

        after_process_message = before_process_message

    broker = yard_broker(small_yard(), extra=[Clumsy()])

    @dramatiq.actor(broker=broker, queue_name="work")
    def fine() -> None: ...

    with run_worker(broker=broker):
        job_id = fine.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")


def test_a_middleware_error_before_a_run_takes_the_retry_path(yard_broker, run_worker):
    runs: list[int] = []

    class Gate(Middleware):
        refused = 0

        def before_process_message(self, broker: Any, message: Any) -> None:
            if self.refused == 0:
                self.refused = 1
                raise MiddlewareError("not now")

    broker = yard_broker(small_yard(), extra=[Gate()])

    @dramatiq.actor(broker=broker, queue_name="work")
    def fine() -> None:
        runs.append(1)

    with run_worker(broker=broker):
        job_id = fine.send().message_id
        wait_for(lambda: facilities(broker).records.read(job_id).state == "succeeded")

    assert runs == [1]
    assert facilities(broker).records.read(job_id).attempts == 2


def test_a_broker_that_is_away_holds_a_retry_until_it_is_back(broker, run_worker, monkeypatch):
    family = broker.families["work"]
    move, refused = family.move, threading.Event()

    def away_once(*args: Any, **options: Any) -> bool:
        if not refused.is_set():
            refused.set()
            raise BrokerUnavailable("move", "connection refused")
        return move(*args, **options)

    monkeypatch.setattr("switchyard.middleware.wait_for_broker.PAUSE_S", 0.01)
    monkeypatch.setattr(family, "move", away_once)
    assert runs_until_success(broker, run_worker) == 2
    assert refused.is_set()


def _retrying(broker: RedisBroker, job_id: str) -> Any:
    record = facilities(broker).records.read(job_id)
    return record if record and record.state == "retrying" and record.error else None
