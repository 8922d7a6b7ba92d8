"""run_enqueued, time that is moved on, retries, dead letters, eager mode."""

import asyncio
import itertools
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import time_machine
from dramatiq import Worker
from dramatiq.middleware import CurrentMessage
from dramatiq.rate_limits import ConcurrentRateLimiter
from periodiq import cron

from switchyard.broker.errors import UnknownQueue
from switchyard.broker.interface import facilities
from switchyard.jobs.queries import find_job
from switchyard.jobs.services import report_progress, request_cancel
from switchyard.limits import rate_limiter_backend
from switchyard.testing import advance, assert_enqueued, assert_nothing_enqueued, dead_letters, in_memory, run_enqueued
from switchyard.testing import running as running_module
from tests.factories.letters import requeue

pytestmark = pytest.mark.usefixtures("switchyard_broker")
ran: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def actor(**options: Any) -> Any:
    """Declare an actor that notes its arguments, and fails for the name ``fail``."""

    @dramatiq.actor(queue_name=options.pop("queue_name", "default"), **options)
    def note(value: Any) -> Any:
        ran.append(value)
        if value == "fail":
            raise RuntimeError("as it was told to")
        return value

    return note


@pytest.mark.parametrize("name", ["defualt", "default-retry"])
def test_a_queue_that_is_not_declared_is_refused_with_those_that_are(name):
    with pytest.raises(UnknownQueue, match=f"queue '{name}' is not declared; the yard has urgent, default, "):
        run_enqueued(queue=name)


def test_a_send_to_a_queue_that_the_yard_does_not_declare_is_refused_with_the_nearest():
    note = actor(queue_name="defualt")

    with pytest.raises(UnknownQueue, match=r"queue 'defualt' is not declared; the yard has urgent, .*, or write 'def"):
        note.send("never")
    assert_nothing_enqueued()


def test_messages_run_by_priority_then_in_order_with_what_they_send():
    note = actor()

    @dramatiq.actor(queue_name="default")
    def first() -> None:
        ran.append("first")
        note.send("sent by first")

    first.send()
    note.send("second")
    note.send_with_options(args=("urgent",), priority=-1)

    attempts = run_enqueued()

    assert ran == ["urgent", "first", "second", "sent by first"]
    assert [attempt.outcome for attempt in attempts] == ["succeeded"] * 4
    assert [attempt.result for attempt in attempts] == ["urgent", None, "second", "sent by first"]


def test_a_negative_delay_is_none_and_a_fraction_is_rounded_up():
    note = actor()
    note.send_with_options(args=("late",), delay=-5)
    note.send_with_options(args=("soon",), delay=59_999.5)

    run_enqueued()
    assert ran == ["late"]
    run_enqueued(delayed=True)
    assert ran == ["late", "soon"]


def test_what_a_task_raised_is_raised_and_retries_and_dead_letters_happen_as_in_production():
    job_id = actor(max_retries=2).send("fail").message_id

    with pytest.raises(RuntimeError, match="as it was told to"):
        run_enqueued()
    assert run_enqueued() == []
    waiting = find_job(job_id)
    attempts = run_enqueued(raises=False, delayed=True)

    [letter] = dead_letters()
    job = find_job(job_id)
    assert (waiting.state, waiting.attempts) == ("retrying", 1)
    assert [attempt.outcome for attempt in attempts] == ["retried", "dead"]
    assert (letter.id, letter.reason, letter.attempts, letter.exception) == (job_id, "exhausted", 3, "RuntimeError")
    assert (job.state, job.reason, len(facilities().alerts.claim_due())) == ("dead", "exhausted", 1)
    assert dead_letters("urgent") == []


def test_a_dead_letter_is_requeued_and_runs():
    job_id = actor(max_retries=0).send("fail").message_id
    run_enqueued(raises=False)

    requeue(facilities().transport, "default", job_id, arguments=(["mended"], {}))
    run_enqueued()

    assert (ran, dead_letters()) == (["fail", "mended"], [])


def test_delays_end_when_the_time_is_moved_on():
    note = actor()
    note.send_with_options(args=("later",), delay=60_000)
    before = datetime.now(UTC)

    run_enqueued()
    advance(seconds=59, schedules=False)
    run_enqueued()
    assert ran == []
    advance(seconds=2, schedules=False)
    run_enqueued()

    assert ran == ["later"]
    assert datetime.now(UTC) - before > timedelta(seconds=60)


def test_a_rate_limit_defers_until_its_window_has_room():
    note = actor(rate_limit="2/m")
    for number in range(5):
        note.send(number)

    attempts = run_enqueued()
    assert ran == [0, 1]
    assert [attempt.outcome for attempt in attempts] == ["succeeded", "succeeded", "deferred", "deferred", "deferred"]

    for most in (4, 5):
        advance(seconds=61, schedules=False)
        run_enqueued()
        assert ran == list(range(most))


@time_machine.travel(datetime(2026, 11, 21, 12, 5, tzinfo=UTC))
def test_schedules_send_at_each_of_their_times_on_the_way():
    @dramatiq.actor(queue_name="default", periodic=cron("*/15 * * * *"))
    def quarterly() -> None:
        ran.append("tick")

    advance(seconds=3_600, schedules=False)
    assert_nothing_enqueued(quarterly)
    advance(seconds=3_600)

    messages = assert_enqueued(quarterly, count=4)
    times = [message.options["enqueued_at"] for message in messages]
    assert [round((later - earlier) / 60_000) for earlier, later in itertools.pairwise(times)] == [15] * 3
    assert messages[0].options["origin"] == {"schedule": "quarterly"}
    run_enqueued(queue="default")
    assert ran.count("tick") == 4


def test_time_does_not_go_back_and_needs_its_package(monkeypatch):
    with pytest.raises(ValueError, match="time only moves on"):
        advance(seconds=-1, schedules=False)
    with pytest.raises(ValueError, match=r"advance\(-5.0\): time only moves on"):
        advance(timedelta(seconds=-5))
    with pytest.raises(TypeError, match=r"advance\('5'\): write seconds as a number, or a timedelta"):
        advance("5")  # type: ignore[arg-type]
    monkeypatch.setitem(__import__("sys").modules, "time_machine", None)
    with pytest.raises(RuntimeError, match="need time-machine"):
        advance(seconds=1, schedules=False)


def test_a_cancelled_job_does_not_run_and_a_running_one_can_read_it():
    note = actor()

    @dramatiq.actor(queue_name="default")
    def stops() -> None:
        ran.append("before")
        assert request_cancel(CurrentMessage.get_current_message().message_id) == "asked"
        report_progress(1, 2)
        ran.append("after")

    job_id = note.send("never").message_id
    assert request_cancel(job_id) == "cancelled"
    running = stops.send().message_id
    assert (ran, [attempt.outcome for attempt in run_enqueued(raises=False)]) == (["before"], ["cancelled"])
    assert [job.state if (job := find_job(id_)) else None for id_ in (job_id, running)] == ["cancelled"] * 2


def test_a_pipeline_and_an_async_actor_run():
    @dramatiq.actor(queue_name="default", store_results=True)
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    dramatiq.pipeline([double.message(2), double.message(), actor().message()]).run()
    run_enqueued()

    assert ran == [8]


def test_a_message_for_an_unknown_actor_fails_the_test(switchyard_broker):
    switchyard_broker.enqueue(dramatiq.Message("default", "nobody", (), {}, {}))

    with pytest.raises(dramatiq.errors.ActorNotFound):
        run_enqueued()


def test_an_actor_that_sends_itself_for_ever_is_stopped(monkeypatch):
    @dramatiq.actor(queue_name="default")
    def again() -> None:
        again.send()

    monkeypatch.setattr(running_module, "MOST_ATTEMPTS", 5)
    again.send()

    with pytest.raises(AssertionError, match="5 messages were run and more wait, the next for again"):
        run_enqueued()


def test_a_result_and_progress_are_in_the_record_and_not_said_to_be_discarded(caplog):
    @dramatiq.actor(queue_name="default", store_results=True)
    def counted() -> dict[str, int]:
        report_progress(2, 2, "done")
        return {"count": 2}

    caplog.set_level(logging.WARNING, "dramatiq.worker.WorkerThread")  # a pool in this process silences it
    waiting, sent = counted.send_with_options(delay=5_000).message_id, counted.send()
    run_enqueued()

    job, later = find_job(sent.message_id), find_job(waiting)
    assert (job.state, job.result, job.progress) == ("succeeded", {"count": 2}, {"done": 2, "total": 2, "note": "done"})
    assert sent.get_result() == {"count": 2}
    assert [record.getMessage() for record in caplog.records if record.name.startswith("dramatiq")] == []
    assert (later.state, later.reason) == ("scheduled", "delay")
    assert find_job("00000000-0000-4000-8000-000000000000") is None


def test_eager_mode_runs_where_it_is_sent():
    with in_memory(eager=True):
        note = actor()
        outer = dramatiq.actor(
            lambda: (note.send("inner"), ran.append("outer")), actor_name="outer", queue_name="default"
        )

        note.send("sent")
        assert ran == ["sent"]
        with pytest.raises(RuntimeError, match="as it was told to"):
            note.send("fail")
        outer.send()
        assert ran == ["sent", "fail", "outer", "inner"]
        assert_enqueued(note, count=3)


def test_a_worker_of_dramatiq_consumes_it(switchyard_broker):
    note = actor()
    worker = Worker(switchyard_broker, worker_timeout=10, worker_threads=2)
    worker.start()
    try:
        for number in range(20):
            note.send(number)
        switchyard_broker.join("default", timeout=60_000)
    finally:
        worker.stop()

    assert sorted(ran) == list(range(20))


def test_results_groups_and_limiters_of_dramatiq_work():
    @dramatiq.actor(queue_name="default", store_results=True)
    def half(number: int) -> float:
        with ConcurrentRateLimiter(rate_limiter_backend(), "half", limit=1).acquire(raise_on_failure=False) as acquired:
            ran.append(acquired)
        return number / 2

    group = dramatiq.group([half.message(2), half.message(6)])
    group.add_completion_callback(actor().message("complete"))
    group.run()
    assert not group.completed
    run_enqueued()

    assert (list(group.get_results()), ran) == ([1, 3], [True, True, "complete"])


def test_a_sequence_waits_for_the_retries_of_its_first_one():
    started = []

    @dramatiq.actor(queue_name="default", ordered_by="customer")
    def tell(customer: int, state: str) -> None:
        started.append((customer, state))
        if started.count((customer, state)) == 1 and state == "new":
            raise RuntimeError("for once")

    for customer, state in ((1, "new"), (1, "paid"), (2, "paid")):
        tell.send(customer, state)
    run_enqueued(raises=False)
    before = list(started)
    run_enqueued(raises=False, delayed=True)

    assert before == [(1, "new"), (2, "paid")]
    assert started == [*before, (1, "new"), (1, "paid")]
