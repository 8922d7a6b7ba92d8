"""``switchyard.compat.celery``: tasks that were Celery's are actors, and mean what they meant."""

import sys
from datetime import timedelta
from typing import Any
from unittest import mock

import dramatiq
import pytest
from django.utils import timezone
from dramatiq.errors import QueueNotFound
from dramatiq.middleware import CurrentMessage

from switchyard.compat.celery import Retry, TaskJob, shared_task
from switchyard.jobs.queries import find_job
from switchyard.middleware.errors import ArgumentMismatch, PermanentFailure, UnknownOption
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, dead_letters, enqueued, run_enqueued

pytestmark = pytest.mark.usefixtures("switchyard_broker")
ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def outcomes(**options: Any) -> list[str]:
    """Run what waits, with its retries, and return how each attempt ended."""
    return [attempt.outcome for attempt in run_enqueued(raises=False, delayed=True, **options)]


def test_a_task_is_an_actor_named_as_its_function_whose_call_runs_in_place_and_delay_enqueues():
    @shared_task
    def add(left: int, right: int = 1) -> int:
        return left + right

    assert dramatiq.get_broker().get_actor("add") is add
    assert (add.queue_name, add.options["max_retries"], add(1, right=2)) == ("default", 3, 3)
    assert_nothing_enqueued()

    job = add.delay(1, right=2)

    assert_enqueued(add, args=(1,), kwargs={"right": 2}, queue="default", count=1)
    assert outcomes() == ["succeeded"]
    assert job.id is not None
    assert find_job(job.id).result == 3


def test_name_and_queue_are_those_that_it_is_given_and_a_call_may_name_another_queue():
    @shared_task(name="shop.add", queue="urgent", ignore_result=True)
    def add(left: int) -> int:
        return left

    add.delay(1)
    job = add.apply_async([2], queue="slow")
    add.apply_async(kwargs={"left": 3})

    assert add.actor_name == "shop.add"
    assert [message.queue_name for message in enqueued(add)] == ["urgent", "slow", "urgent"]
    assert outcomes() == ["succeeded"] * 3
    assert find_job(job.id).result is None
    with pytest.raises(QueueNotFound, match=r"celery: no queue of the topology; it declares .*default"):
        add.apply_async([4], queue="celery")


@pytest.mark.parametrize(
    ("when", "delay_s"),
    [
        ({"countdown": 90}, 90),
        ({"eta": timedelta(hours=2)}, 7_200),
        ({"countdown": 0.5, "eta": timedelta(hours=2)}, 0.5),
        ({"eta": timedelta(hours=-2)}, 0),
    ],
)
@pytest.mark.parametrize("naive", [False, True])
def test_a_job_waits_for_its_countdown_or_eta(when, delay_s, naive, settings):
    settings.TIME_ZONE = "Asia/Kolkata"

    @shared_task
    def note() -> None: ...

    now = timezone.now()
    if "eta" in when:
        eta = now + when["eta"]
        when = {**when, "eta": timezone.make_naive(eta) if naive else eta}
    note.apply_async(**when)

    [message] = enqueued(note)
    due_ms = message.options.get("due_at", now.timestamp() * 1_000)
    assert due_ms == pytest.approx((now.timestamp() + delay_s) * 1_000, abs=5_000)


def test_only_what_the_task_asks_for_is_retried():
    @shared_task
    def fail() -> None:
        ran.append("fail")
        raise ValueError("as it was told to")

    fail.delay()

    assert outcomes() == ["dead"]
    [letter] = dead_letters()
    assert (letter.reason, ran) == ("exhausted", ["fail"])


def test_autoretry_for_retries_these_errors_after_the_delay_and_no_others():
    @shared_task(autoretry_for=(ConnectionError,), max_retries=2, default_retry_delay=5)
    def call(kind: str) -> None:
        ran.append(kind)
        raise ConnectionError("away") if kind == "away" else ValueError("wrong")

    call.delay("away")
    call.delay("wrong")

    assert sorted(outcomes()) == ["dead", "dead", "retried", "retried"]
    assert (sorted(ran), call.options["backoff"](1)) == (["away"] * 3 + ["wrong"], 5_000)
    assert {(letter.exception, letter.error, letter.reason) for letter in dead_letters()} == {
        ("ConnectionError", "away", "exhausted"),
        ("ValueError", "wrong", "exhausted"),
    }


def test_a_bound_task_retries_itself_and_then_raises_what_it_was_given():
    @shared_task(bind=True, max_retries=2)
    def call(self: Any, address: str) -> None:
        ran.append((self.request.id, self.request.retries, self.max_retries))
        try:
            raise ConnectionError(address)
        except ConnectionError as error:
            raise self.retry(exc=error, countdown=7) from error

    job = call.delay("example.com")

    assert outcomes() == ["retried", "retried", "dead"]
    assert ran == [(job.id, retries, 2) for retries in range(3)]
    [letter] = dead_letters()
    assert (letter.exception, letter.error, letter.reason) == ("ConnectionError", "example.com", "exhausted")


def test_a_retry_has_limit_and_delay_of_its_own():
    @shared_task(bind=True, max_retries=1)
    def call(self: Any) -> None:
        ran.append(self.request.retries)
        if self.request.retries < 4:
            self.retry(countdown=3_600, max_retries=None if ran == [0] else 5)

    call.delay()
    [first] = run_enqueued(raises=False)
    [message] = enqueued()

    assert isinstance(first.exception, Retry)
    assert 3_600 - 60 < (message.options["due_at"] / 1_000 - timezone.now().timestamp()) < 3_600 + 600
    assert outcomes() == ["retried"] * 3 + ["succeeded"]


def test_without_an_error_of_its_own_a_task_that_has_no_retry_left_says_so():
    @shared_task(bind=True, max_retries=1)
    def call(self: Any, caught: bool) -> str:
        try:
            self.retry()
        except self.MaxRetriesExceededError:
            if caught:
                return "given up"
            raise

    job = call.delay(caught=True)
    call.delay(caught=False)

    assert sorted(outcomes()) == ["dead", "retried", "retried", "succeeded"]
    assert find_job(job.id).result == "given up"
    [letter] = dead_letters()
    assert (letter.exception, letter.error) == (PermanentFailure.__name__, "task call: all 1 retries are used up")


def test_a_bound_task_that_is_called_runs_in_place_and_raises_its_error():
    @shared_task(bind=True)
    def call(self: Any, address: str) -> TaskJob:
        if address == "away":
            try:
                raise ConnectionError(address)
            except ConnectionError:
                self.retry(countdown=1)
        return self.request

    assert call("there") == TaskJob(None, 0)
    with pytest.raises(ConnectionError, match="away"):
        call("away")
    assert_nothing_enqueued()


def test_a_task_that_calls_another_is_not_that_ones_job():
    @shared_task(bind=True)
    def inner(self: Any) -> None:
        ran.append((self.actor_name, self.request.id))

    @shared_task(bind=True)
    def outer(self: Any) -> None:
        inner()
        ran.append((self.actor_name, self.request.id))

    job = outer.delay()
    run_enqueued()

    assert ran == [("inner", None), ("outer", job.id)]
    assert CurrentMessage.get_current_message() is None


def test_arguments_of_a_bound_task_are_compared_where_they_are_sent():
    @shared_task(bind=True)
    def add(self: Any, left: int) -> None: ...

    with pytest.raises(ArgumentMismatch, match="right"):
        add.delay(1, right=2)
    with pytest.raises(ArgumentMismatch, match="left"):
        add.delay("one")


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ("acks_late", "'acks_late': leave it out: a job is acknowledged at its end"),
        ("soft_time_limit", r"'soft_time_limit': declare @dramatiq.actor\(time_limit=...\), in milliseconds"),
        ("retry_backoff", "'retry_backoff': write default_retry_delay and max_retries"),
        ("no_such_option", "'no_such_option': leave it out, or declare @dramatiq.actor"),
    ],
)
def test_an_option_without_a_counterpart_is_refused_with_what_to_write(option, remedy):
    def add() -> None: ...

    with pytest.raises(UnknownOption, match=f"task add: unknown option of .*{remedy}"):
        shared_task(**{option: 1})(add)

    task = shared_task(add)
    for call in (task.apply_async, task.retry):
        with pytest.raises(UnknownOption, match=f"task add: .*{remedy}"):
            call(**{option: 1})


def test_mocks_of_delay_keep_working(monkeypatch):
    @shared_task
    def patched(number: int) -> int:
        return number

    module = sys.modules[__name__]
    monkeypatch.setattr(module, "patched", patched, raising=False)
    with mock.patch(f"{__name__}.patched.delay") as delay:
        module.patched.delay(1)

    delay.assert_called_once_with(1)
    assert_nothing_enqueued()
    patched.delay(2)
    assert_enqueued(patched, args=(2,), count=1)
