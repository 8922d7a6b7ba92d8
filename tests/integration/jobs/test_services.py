"""Work is sent, followed and stopped through the services of jobs."""

from __future__ import annotations

import uuid
from typing import Any

import dramatiq
import pytest
import redis
from django.db import transaction

from switchyard.broker.errors import BrokerRefused, BrokerUnavailable, PayloadTooLarge, UnencodablePayload
from switchyard.broker.interface import facilities
from switchyard.broker.keys.keys import Keys
from switchyard.broker.redis.connections import connect
from switchyard.broker.stores.job_steps import LiveJob, live_step
from switchyard.jobs.queries import find_job, visible_job
from switchyard.jobs.services import current_job_id, enqueue_on_commit, report_progress, request_cancel, submit
from switchyard.middleware.errors import ArgumentMismatch, InvalidOption
from switchyard.wiring import build_yard
from tests.conftest import RunWorker
from tests.factories.brokers import broker_without_server
from tests.integration.jobs import probe_actors
from tests.waiting import wait_for

JOB_ID = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"


def state(job_id: str) -> str:
    job = find_job(job_id)
    return "" if job is None else job.state


def test_a_submitted_job_is_queued_runs_and_keeps_its_result(db: None, run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})

    queued = find_job(job_id)
    with run_worker("default"):
        wait_for(lambda: state(job_id) == "succeeded")
    done = find_job(job_id)

    assert queued is not None
    assert (queued.state, queued.owner, queued.attempts) == ("queued", "user:1", 0)
    assert done is not None
    assert (done.result, done.attempts) == ({"sum": 3}, 1)


def test_submit_takes_arguments_as_send_does(valkey: redis.Redis) -> None:
    submit(probe_actors.add, 1, kwargs={"b": 2})
    submit(probe_actors.add, 1, b=2)
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'b'; it is declared as probe_add"):
        submit(probe_actors.add, 1)

    assert facilities().transport.stats("default").live.waiting == 2


@pytest.mark.parametrize("send", [submit, enqueue_on_commit])
def test_an_actor_s_own_argument_that_is_called_delay_is_none_of_ours(valkey: redis.Redis, db: None, send: Any) -> None:
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'address'; it is declared"):
        send(probe_actors.remind, delay=5)
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'address'"):
        send(probe_actors.remind, adress="a", eta=5)


def test_arguments_that_do_not_fit_are_refused_where_they_are_sent(valkey: redis.Redis) -> None:
    with pytest.raises(ArgumentMismatch):
        submit(probe_actors.add, kwargs={"a": 1})

    assert facilities().transport.stats("default").live.waiting == 0


def test_arguments_of_a_wrong_type_are_refused_where_they_are_sent(valkey: redis.Redis) -> None:
    words = r"^actor probe_add: kwargs is a tuple; write a dict; it is declared as probe_add\("
    wrong: Any = ("Ada",)
    for send in (submit, enqueue_on_commit):
        with pytest.raises(ArgumentMismatch, match=words):
            send(probe_actors.add, kwargs=wrong)
    with pytest.raises(ArgumentMismatch, match=words):
        probe_actors.add.send_with_options(kwargs=wrong)

    assert facilities().transport.stats("default").live.waiting == 0


@pytest.mark.parametrize("job_id", ["invoice-5", JOB_ID.upper(), uuid.UUID(JOB_ID)])
def test_a_job_id_that_would_never_be_found_is_refused(valkey: redis.Redis, job_id: Any) -> None:
    for send in (submit, enqueue_on_commit):
        with pytest.raises(ValueError, match="is no UUID in lower case"):
            send(probe_actors.add, job_id=job_id, kwargs={"a": 1, "b": 2})

    assert facilities().transport.stats("default").live.waiting == 0


def test_a_delayed_job_is_scheduled(valkey: redis.Redis) -> None:
    job_id = submit(probe_actors.add, delay_ms=60_000, kwargs={"a": 1, "b": 2})

    job = find_job(job_id)

    assert job is not None
    assert (job.state, job.reason) == ("scheduled", "delay")
    assert job.next_attempt_at is not None
    assert job.enqueued_at is not None
    assert job.next_attempt_at - job.enqueued_at == pytest.approx(60_000, abs=20_000)


@pytest.mark.usefixtures("transactional_db")
def test_a_delay_of_a_job_is_counted_from_the_commit() -> None:
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, 1, 2, delay_ms=60_000)

    assert state(job_id) == "scheduled"


@pytest.mark.usefixtures("transactional_db")
def test_a_job_is_sent_when_the_transaction_commits() -> None:
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, owner="user:1", kwargs={"a": 1, "b": 2})
        before = find_job(job_id)

    assert before is None
    assert state(job_id) == "queued"


@pytest.mark.usefixtures("transactional_db")
def test_a_job_is_never_sent_when_the_transaction_rolls_back() -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, kwargs={"a": 1, "b": 2})
        1 / 0  # noqa: B018

    assert find_job(job_id) is None
    assert facilities().transport.stats("default").live.waiting == 0


@pytest.mark.usefixtures("transactional_db")
def test_arguments_are_checked_before_the_commit() -> None:
    with transaction.atomic():
        for call in ({"kwargs": {"c": 1}}, {"a": 1, "c": 2}, {"kwarg": {"a": 1, "b": 2}}):
            with pytest.raises(ArgumentMismatch, match=r"probe_add\(a: .* at \S+probe_actors.py:\d+"):
                enqueue_on_commit(probe_actors.add, **call)
        with pytest.raises(ArgumentMismatch, match="too many positional arguments"):
            enqueue_on_commit(probe_actors.add, 1, 2, 3)


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize("delay_ms", ["10", 10**15, float("nan"), True])
def test_a_delay_is_checked_before_the_commit(delay_ms: Any) -> None:
    with transaction.atomic(), pytest.raises(InvalidOption, match=r"probe_add: delay_ms is .*; write milliseconds"):
        enqueue_on_commit(probe_actors.add, 1, 2, delay_ms=delay_ms)


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize(
    ("error", "value"), [(UnencodablePayload, object()), (UnencodablePayload, {1}), (PayloadTooLarge, "x" * 2_000_000)]
)
def test_arguments_that_cannot_be_sent_are_refused_before_the_commit(error: type[Exception], value: Any) -> None:
    with transaction.atomic(), pytest.raises(error):
        enqueue_on_commit(probe_actors.note, value)


@pytest.mark.usefixtures("transactional_db")
def test_an_actor_s_own_delay_ms_is_told_from_the_option() -> None:
    with pytest.raises(ArgumentMismatch, match=r"is an option of this call.* write kwargs=\{'delay_ms': \.\.\.\}"):
        enqueue_on_commit(probe_actors.remind, "a", delay_ms=60_000)

    by_name = enqueue_on_commit(probe_actors.remind, "a", kwargs={"delay_ms": 1})
    by_place = enqueue_on_commit(probe_actors.remind, "a", 0, 1, delay_ms=60_000)

    assert (state(by_name), state(by_place)) == ("queued", "scheduled")


@pytest.mark.usefixtures("transactional_db")
@pytest.mark.parametrize(("args", "named"), [((1, 2), {}), ((1,), {"b": 2}), ((), {"a": 1, "b": 2})])
def test_arguments_are_passed_as_to_send(args: tuple[int, ...], named: dict[str, int]) -> None:
    with transaction.atomic():
        job_id = enqueue_on_commit(probe_actors.add, *args, **named)

    assert state(job_id) == "queued"


def test_outside_of_a_worker_nothing_is_reported() -> None:
    report_progress(1, 2)

    assert current_job_id() is None


def test_a_broker_that_is_away_costs_a_progress_report_and_not_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.jobs.services.current_job_id", lambda: "a job")

    with broker_without_server():
        report_progress(1, 2)


def test_a_refused_progress_report_does_not_fail_the_job(monkeypatch: pytest.MonkeyPatch, valkey: redis.Redis) -> None:
    job_id = "0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"
    monkeypatch.setattr("switchyard.jobs.services.current_job_id", lambda: job_id)
    valkey.set(facilities().records.keys.queue("default").jobs, "of a wrong type")

    report_progress(1, 2)

    with pytest.raises(BrokerRefused, match="WRONGTYPE"):
        find_job(job_id)


def test_progress_is_recorded(db: None, run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.steps, kwargs={"total": 3})

    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) and job.progress)
        job = find_job(job_id)
        probe_actors.go_on.set()
        wait_for(lambda: state(job_id) == "succeeded")

    assert job is not None
    assert job.progress == {"done": 1, "total": 3, "note": "first"}


def test_a_long_note_is_cut_and_numbers_are_whole(monkeypatch: pytest.MonkeyPatch, valkey: redis.Redis) -> None:
    job_id = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    monkeypatch.setattr("switchyard.jobs.services.current_job_id", lambda: job_id)
    facilities().records.write([live_step("default", LiveJob(job_id, "running", attempt=1))])

    report_progress(1.5, 3, "x" * 20_000)  # type: ignore[arg-type]

    job = find_job(job_id)
    assert job is not None
    assert job.progress == {"done": 1, "total": 3, "note": "x" * 500}


@pytest.mark.parametrize("done", [float("nan"), float("inf"), "1", None, 10**400])
def test_progress_that_is_no_finite_number_is_refused_with_what_to_write(done: Any) -> None:
    with pytest.raises(ValueError, match=r"done is .*, no finite number; write report_progress\(3, 10"):
        report_progress(done, 2)


def test_a_running_job_stops_at_its_next_step(db: None, run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.steps, kwargs={"total": 3})

    with run_worker("default"):
        wait_for(lambda: (job := find_job(job_id)) and job.progress)
        answer = request_cancel(job_id)
        probe_actors.go_on.set()
        wait_for(lambda: state(job_id) == "cancelled")

    assert answer == "asked"
    job = find_job(job_id)
    assert job is not None
    assert job.progress is not None
    assert job.progress["done"] < 3


@pytest.mark.parametrize("delay_ms", [None, 60_000])
def test_a_waiting_job_is_cancelled_at_once_and_never_runs(
    db: None, run_worker: RunWorker, delay_ms: int | None
) -> None:
    job_id = submit(probe_actors.add, delay_ms=delay_ms, kwargs={"a": 1, "b": 2})

    answer = request_cancel(job_id)
    assert state(job_id) == "cancelled"
    after = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    with run_worker("default"):
        wait_for(lambda: state(after) == "succeeded")

    assert answer == "cancelled"
    assert state(job_id) == "cancelled"


def test_a_job_that_ended_cannot_be_cancelled(db: None, run_worker: RunWorker) -> None:
    job_id = submit(probe_actors.add, kwargs={"a": 1, "b": 2})
    with run_worker("default"):
        wait_for(lambda: state(job_id) == "succeeded")

    assert request_cancel(job_id) == "ended"


def test_an_unknown_job_is_unknown(valkey: redis.Redis) -> None:
    assert request_cancel("0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11") == "unknown"
    assert find_job("0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11") is None
    assert find_job("no id at all") is None


@pytest.mark.parametrize(
    ("owner", "asks", "operator", "seen"),
    [
        ("user:1", "user:1", False, True),
        ("user:1", "user:2", False, False),
        ("user:1", "user:2", True, True),
        ("", "", False, False),
        ("", "user:1", False, False),
        ("", "user:1", True, True),
    ],
)
def test_a_job_is_seen_by_its_owner_and_by_operators(
    valkey: redis.Redis, owner: str, asks: str, operator: bool, seen: bool
) -> None:
    job_id = submit(probe_actors.add, owner=owner, kwargs={"a": 1, "b": 2})

    assert (visible_job(job_id, owner=asks, operator=operator) is not None) == seen


@pytest.fixture
def broken_broker(valkey: redis.Redis, settings: Any) -> Any:
    """This project's broker on a server that is not there."""
    whole = dramatiq.get_broker()
    dead = build_yard(settings.SWITCHYARD.topology, connect("redis://127.0.0.1:1"), Keys())
    moved = [probe_actors.add]
    dramatiq.set_broker(dead)
    for actor in moved:
        dead.declare_actor(actor)
        actor.broker = dead
    yield dead
    for actor in moved:
        actor.broker = whole
    dramatiq.set_broker(whole)


def test_a_broker_that_is_down_is_named_as_such(broken_broker: Any) -> None:
    for attempt in (
        lambda: submit(probe_actors.add, kwargs={"a": 1, "b": 2}),
        lambda: find_job("0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"),
        lambda: request_cancel("0d6f3c2e-7f3a-4c62-9a41-3a8f0a3b9c11"),
    ):
        with pytest.raises(BrokerUnavailable):
            attempt()


@pytest.mark.parametrize("send", [submit, enqueue_on_commit])
def test_what_is_no_actor_is_refused_with_what_to_pass(send: Any) -> None:
    for wrong in ("probe_add", probe_actors.add.fn):
        with pytest.raises(TypeError, match=r"is no actor; pass what @dramatiq\.actor returns"):
            send(wrong, kwargs={})


def test_a_decorator_above_an_actor_is_named_as_the_fault(valkey: redis.Redis) -> None:
    decorated: Any = transaction.atomic(probe_actors.add)

    with pytest.raises(TypeError, match=r"is no actor; pass what @dramatiq\.actor returns"):
        submit(decorated, kwargs={"a": 1, "b": 2})
