"""Failed messages are retried, dead-lettered or dropped as their options say."""

import time
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware, MiddlewareError

from switchyard.broker.topology import Yard
from switchyard.middleware.errors import PermanentFailure, RetryLater
from tests.factories.yards import small_yard
from tests.integration.middleware.conftest import Work, away
from tests.waiting import wait_for


def test_a_failed_message_is_tried_again_in_the_retry_lane_only(work):
    seen: list[str] = []

    @work.actor
    def flaky() -> None:
        seen.append(dramatiq.middleware.CurrentMessage.get_current_message().queue_name)
        if len(seen) < 3:
            raise RuntimeError("not yet")

    assert work.end_of(flaky.send(), "succeeded").attempts == 3
    assert seen == ["work", "work-retry", "work-retry"]


def test_after_its_retries_a_message_is_one_dead_letter_and_nowhere_else(works):
    work = works(max_retries=5)

    @work.actor
    def broken(order: int) -> None:
        raise ValueError(f"order {order} cannot be shipped")

    with work.run():
        sent = broken.send(7)
        wait_for(lambda: work.stats.dead == 1)
        work.until(sent, "dead")
        wait_for(lambda: work.stats.retry.running == 0)

    letter, stats = work.letter(sent), work.stats
    assert (letter.attempts, letter.reason, letter.exception) == (6, "exhausted", "ValueError")
    assert letter.message["args"] == [7]
    assert "cannot be shipped" in letter.traceback
    assert letter.enqueued_at <= letter.died_at
    assert stats.live.waiting + stats.live.scheduled + stats.retry.waiting + stats.retry.scheduled == 0
    assert stats.quarantined == 0, "Dramatiq keeps a second copy"


def test_a_permanent_failure_skips_its_retries(work):
    runs: list[int] = []

    @work.actor(permanent=(KeyError,))
    def declared(kind: str) -> None:
        runs.append(1)
        raise KeyError(kind) if kind == "declared" else PermanentFailure(kind)

    with work.run():
        letters = [work.letter(sent) for sent in (declared.send("declared"), declared.send("raised"))]

    assert [letter.reason for letter in letters] == ["permanent", "permanent"]
    assert len(runs) == 2


def test_retry_after_is_the_least_delay(work):
    @work.actor
    def limited() -> None:
        raise RetryLater(120, "the provider asked for two minutes")

    record = work.end_of(limited.send(), "retrying")

    assert 119_000 <= record.next_attempt_at - record.started_at <= 125_000
    assert record.error == {"type": "RetryLater", "message": "the provider asked for two minutes"}


def test_the_record_of_a_job_outlives_the_wait_for_its_retry(work):
    month_ms = 30 * 24 * 3_600_000

    @work.actor(backoff=lambda retry: month_ms)
    def patient() -> None:
        raise RuntimeError("not this month")

    record = work.end_of(patient.send(), "retrying")

    assert record.next_attempt_at > time.time() * 1000 + month_ms - 24 * 3_600_000
    jobs = work.broker.keys.queue("work").jobs
    assert work.broker.client.pttl(jobs) == -1, "a record of a job that lives does not expire"


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
    assert Work(yard_broker(yard), run_worker).runs_until_success(**options) == 2


def test_a_permanent_check_that_raises_costs_no_retry(works):
    class Moody(type):
        def __instancecheck__(cls, instance: object) -> bool:
            raise RuntimeError("not today")

    class Never(Exception, metaclass=Moody):
        pass

    assert works(max_retries=1).runs_until_success(permanent=(Never,)) == 2


def test_a_hook_that_refuses_a_retry_does_not_lose_the_message(works):
    class RefusesRetries(Middleware):
        def before_enqueue(self, broker: Any, message: Any, delay: int | None) -> None:
            if message.options.get("attempts"):
                raise MiddlewareError("no retries on Fridays")

    work = works(extra=[RefusesRetries()])

    @work.actor
    def broken() -> None:
        raise RuntimeError("the first failure")

    sent = broken.send()
    letter = work.letter_of(sent)

    refused = "retry refused (MiddlewareError('no retries on Fridays')): the first failure"
    assert (letter.reason, letter.exception, letter.error) == ("exhausted", "RuntimeError", refused)
    assert work.read(sent).error == {"type": "RuntimeError", "message": refused}


def test_what_other_hooks_raise_neither_fails_nor_loses_a_job(works):
    class Clumsy(Middleware):
        def before_process_message(self, broker: Any, message: Any) -> None:
            raise RuntimeError("dropped by Dramatiq")

        after_process_message = before_process_message

    work = works(extra=[Clumsy()])

    work.end_of(work.actor(lambda: None, actor_name="fine").send(), "succeeded")


def test_a_middleware_error_before_a_run_takes_the_retry_path(works):
    runs: list[int] = []

    class Gate(Middleware):
        refused = 0

        def before_process_message(self, broker: Any, message: Any) -> None:
            if self.refused == 0:
                self.refused = 1
                raise MiddlewareError("not now")

    work = works(extra=[Gate()])
    assert work.end_of(work.actor(lambda: runs.append(1), actor_name="fine").send(), "succeeded").attempts == 2
    assert runs == [1]


def test_a_broker_that_is_away_holds_a_retry_until_it_is_back(work, monkeypatch):
    refused = away(monkeypatch, work.broker.families["work"], "move")
    assert work.runs_until_success() == 2
    assert refused
