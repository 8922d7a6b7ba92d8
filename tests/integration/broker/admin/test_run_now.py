"""Scheduled jobs that an operator runs before their time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dramatiq
import pytest

from switchyard.broker.admin.cancel import cancel
from switchyard.broker.admin.scheduled import run_now
from switchyard.broker.clock import now_ms
from switchyard.broker.interface import facilities
from switchyard.broker.queue import administration
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from tests.factories.yards import small_yard
from tests.waiting import wait_for

HOUR_MS = 3_600_000
ran: list[Any] = []


@pytest.fixture
def broker(yard_broker: Callable[..., RedisBroker]) -> RedisBroker:
    broker = yard_broker(small_yard())
    ran.clear()

    @dramatiq.actor(broker=broker, queue_name="work")
    def job(number: int) -> None:
        ran.append(number)

    @dramatiq.actor(broker=broker, queue_name="work", max_retries=3, min_backoff=HOUR_MS, max_backoff=HOUR_MS)
    def fails_once() -> None:
        ran.append("failed" if "failed" not in ran else "succeeded")
        if ran == ["failed"]:
            raise ValueError("not yet")

    return broker


def later(broker: RedisBroker, number: int = 7, **options: Any) -> str:
    return str(broker.actors["job"].send_with_options(args=(number,), delay=HOUR_MS, **options).message_id)


def test_a_delayed_job_starts_at_once_and_its_wait_counts_from_then(broker: RedisBroker, run_worker: Any) -> None:
    parts, before = facilities(broker), now_ms()
    chosen, other = later(broker, 7), later(broker, 8)

    with run_worker(broker=broker):  # an idle worker waits for the due time, and is woken
        assert run_now(parts, chosen) == "due"
        wait_for(lambda: ran == [7])
        wait_for(lambda: parts.records.states([chosen, other]) == ["succeeded", "scheduled"])

    record = parts.records.read(chosen)
    assert record is not None and record.attempts == 1
    assert record.due_at is not None and before <= record.due_at <= now_ms()


def test_a_job_that_waits_for_its_retry_runs_its_next_attempt(broker: RedisBroker, run_worker: Any) -> None:
    parts = facilities(broker)
    job_id = broker.actors["fails_once"].send().message_id

    with run_worker(broker=broker):
        wait_for(lambda: parts.records.states([job_id]) == ["retrying"])
        due = parts.records.read(job_id)
        assert run_now(parts, job_id) == "due"
        wait_for(lambda: parts.records.states([job_id]) == ["succeeded"])

    record = parts.records.read(job_id)
    assert due is not None and due.next_attempt_at is not None and due.next_attempt_at > now_ms() + HOUR_MS / 4
    assert record is not None and record.attempts == 2 and ran == ["failed", "succeeded"]


def test_a_paused_queue_keeps_the_job_and_shows_its_new_time(broker: RedisBroker, run_worker: Any) -> None:
    parts, family = facilities(broker), broker.families["work"]
    administration.pause(family)
    job_id = later(broker)

    with run_worker(broker=broker):
        answers = run_now(parts, job_id), run_now(parts, job_id)
        record = parts.records.read(job_id)
        assert ran == []
        administration.resume(family)
        wait_for(lambda: ran == [7])

    assert answers == ("due", "due")
    assert record is not None and record.next_attempt_at is not None and record.next_attempt_at <= now_ms()


def test_the_answer_says_why_nothing_was_changed(broker: RedisBroker) -> None:
    parts, family = facilities(broker), broker.families["work"]
    waits = broker.actors["job"].send(1).message_id
    cancelled = later(broker)
    cancel(parts, cancelled)
    body = b'{"actor":"job","sent_at":1,"options":{"deferred_by":"rate_limit"}}'
    family.enqueue([Entry("limited", body)], delay_ms=HOUR_MS)

    answers = [run_now(parts, id_) for id_ in (waits, cancelled, "limited", "no-such-job")]

    assert answers == ["waiting", "ended", "held", "unknown"]
    assert family.calls.command("ZRANGE", family.keys.due("live"), 0, -1) == [b"limited"]


def test_a_body_that_cannot_be_read_goes_where_a_worker_sets_it_aside(broker: RedisBroker) -> None:
    family = broker.families["work"]
    family.enqueue([Entry("broken", b"{")], delay_ms=HOUR_MS)

    assert run_now(facilities(broker), "broken") == "due"

    assert [grant.body for grant in _fetched(family)] == [b"{"]


def _fetched(family: Any) -> Any:
    family.join("worker/live")
    return family.fetch("worker/live", 5, request=1).grants
