"""Each point of Django's task API on our backend, with a worker in this process."""

import uuid
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
from asgiref.sync import async_to_sync
from django.core.checks import run_checks
from django.db import transaction
from django.urls import reverse

from switchyard.dead_letters.acts import act_on
from switchyard.jobs.services import request_cancel
from switchyard.middleware.errors import ArgumentMismatch, Cancelled, InvalidOption
from switchyard.tasks import SwitchyardBackend
from switchyard.tasks.backend import declare_tasks
from tests.conftest import RunWorker
from tests.integration.history.rows import BASE_MS, job_row
from tests.integration.tasks.names import (
    InvalidTaskError,
    TaskResultDoesNotExist,
    TaskResultMismatch,
    default_task_backend,
    task,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from tests.waiting import wait_for

LANES = ("default", "threads", "again", "again-retry")


def finish(result: Any, run_worker: RunWorker) -> Any:
    """Run a worker until a task has ended, and return its result as it is read then."""
    with run_worker(*LANES, broker=dramatiq.get_broker()):
        wait_for(lambda: result.refresh() or result.is_finished)
    return result


def test_an_enqueued_task_is_ready_and_its_result_is_found(host_tasks):
    before = datetime.now(UTC) - timedelta(seconds=1)

    result = host_tasks.add.enqueue(1, right=2)

    found = host_tasks.add.get_result(result.id)
    assert (found.status, found.args, found.kwargs, found.backend) == ("READY", [1], {"right": 2}, "default")
    assert found.id == result.id == str(uuid.UUID(result.id))
    assert found.enqueued_at == result.enqueued_at and before < found.enqueued_at <= datetime.now(UTC)
    assert (found.started_at, found.finished_at, found.last_attempted_at) == (None, None, None)
    assert (found.attempts, found.worker_ids, found.errors, found.is_finished) == (0, [], [], False)
    assert found.task == host_tasks.add
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = found.return_value


def test_everything_is_there_for_coroutines(host_tasks, run_worker):
    async def enqueue() -> Any:
        result = await host_tasks.add.aenqueue(2)
        assert (await host_tasks.add.aget_result(result.id)).status == "READY"
        return result

    result = async_to_sync(enqueue)()

    with run_worker(*LANES, broker=dramatiq.get_broker()):
        wait_for(lambda: async_to_sync(result.arefresh)() or result.is_finished)
    assert result.return_value == 3


def test_an_asynchronous_task_on_greenlets_is_refused(host_tasks):
    with pytest.raises(InvalidTaskError, match="pool greenlets of queue 'greenlets' runs greenlets"):
        host_tasks.sleep_and_add.using(queue_name="greenlets")


def test_a_task_runs_at_its_time_and_not_before(host_tasks, run_worker):
    at = datetime.now(UTC) + timedelta(seconds=1)

    result = host_tasks.add.using(run_after=at).enqueue(1)

    found = host_tasks.add.get_result(result.id)
    assert found.status == "READY"
    assert abs(found.task.run_after - at) < timedelta(milliseconds=1)
    assert finish(result, run_worker).started_at >= at
    past = host_tasks.add.using(run_after=datetime.now(UTC) - timedelta(days=1)).enqueue(1)
    assert finish(past, run_worker).return_value == 2
    with pytest.raises(InvalidTaskError, match="more than a year away"):
        host_tasks.add.using(run_after=at + timedelta(days=800)).enqueue(1)
    with pytest.raises(InvalidTaskError, match="must be an aware datetime"):
        host_tasks.add.using(run_after=datetime(2030, 1, 1))  # noqa: DTZ001


def test_a_task_goes_to_its_queue_with_its_priority(host_tasks):
    result = host_tasks.add.using(queue_name="threads", priority=20).enqueue(1)

    found = default_task_backend.get_result(result.id)
    assert (found.task.queue_name, found.task.priority) == ("threads", 20)
    record = dramatiq.get_broker().switchyard.records.read(result.id)
    assert (record.queue, record.actor) == ("threads", f"{host_tasks.__name__}.add")


def test_arguments_that_do_not_fit_are_refused_when_they_are_sent(host_tasks):
    with pytest.raises(ArgumentMismatch, match="missing a required argument: 'left'"):
        host_tasks.add.enqueue()
    with pytest.raises(ArgumentMismatch, match="unexpected keyword argument 'context'"):
        host_tasks.about.enqueue("x", context=1)


def test_results_that_are_not_there(host_tasks, transactional_db):
    result = host_tasks.add.enqueue(1)

    for unknown in (str(uuid.uuid4()), "no id", ""):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(unknown)
    with pytest.raises(TaskResultDoesNotExist):
        async_to_sync(default_task_backend.aget_result)(str(uuid.uuid4()))
    with pytest.raises(TaskResultMismatch):
        host_tasks.nothing.get_result(result.id)
    with pytest.raises(TaskResultMismatch):
        async_to_sync(host_tasks.nothing.aget_result)(result.id)


def test_a_failed_task_that_a_person_requeues_may_succeed(host_tasks, run_worker, transactional_db):
    result = finish(host_tasks.divide.enqueue(0), run_worker)
    assert (result.status, result.attempts) == ("FAILED", 1)

    assert act_on(result.id, "requeue", by="ada", arguments=([2], {})) == ""
    result.refresh()

    assert result.status == "READY"
    finish(result, run_worker)
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 0.5, 2)
    assert [error.exception_class for error in result.errors] == [ZeroDivisionError]
    assert result.started_at < result.last_attempted_at


def test_the_history_answers_when_the_broker_has_forgotten(host_tasks, transactional_db):
    path = host_tasks.__name__
    done = job_row(actor=f"{path}.add", queue="threads", result="3", started_at=BASE_MS, enqueued_at=BASE_MS)
    none = job_row(actor=f"{path}.nothing", result="null")
    lost = job_row(actor=f"{path}.echo", result="")
    failed = job_row(actor=f"{path}.divide", state="dead", error_type="ZeroDivisionError", error_message="by zero")
    waits = job_row(actor=f"{path}.add", state="retrying")
    other = job_row(actor="no_task", result="3")

    found = default_task_backend.get_result(done.job_id)
    assert (found.status, found.return_value, found.task.queue_name) == ("SUCCESSFUL", 3, "threads")
    assert found.enqueued_at <= found.started_at <= found.finished_at
    assert default_task_backend.get_result(none.job_id).return_value is None
    [error] = default_task_backend.get_result(failed.job_id).errors
    assert (error.exception_class, error.traceback) == (ZeroDivisionError, "by zero")
    for row in (lost, waits, other):
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(row.job_id)


def test_the_room_shows_a_task_under_its_path(host_tasks, run_worker, admin_client, transactional_db):
    path = f"{host_tasks.__name__}.about"
    result = finish(host_tasks.about.enqueue("word"), run_worker)

    actor = admin_client.get(reverse("switchyard-actor", args=[path])).content.decode()
    job = admin_client.get(reverse("switchyard-job", args=[result.id])).content.decode()

    assert path in actor and "Return what a task may know of itself" in actor
    assert "about(word)" in actor and f"{host_tasks.__name__.replace('.', '/')}.py:" in actor
    assert path in job and "succeeded" in job


def test_a_message_without_the_backends_option_runs_as_well(host_tasks, run_worker):
    actor = dramatiq.get_broker().actors[f"{host_tasks.__name__}.add"]

    message = actor.send(1, right=4)

    result = finish(default_task_backend.get_result(message.message_id), run_worker)
    assert (result.return_value, result.backend, result.task) == (5, "default", host_tasks.add)


def test_an_actor_beside_a_task(host_tasks, run_worker, transactional_db):
    ran: list[str] = []

    @dramatiq.actor(queue_name="threads")
    def neighbour(word: str) -> None:
        ran.append(word)

    message = neighbour.send("actor")

    assert finish(host_tasks.add.enqueue(1), run_worker).return_value == 2
    with run_worker(*LANES, broker=dramatiq.get_broker()):
        wait_for(lambda: ran == ["actor"])
    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(message.message_id)


def test_a_cancelled_task_has_failed(host_tasks, run_worker):
    ended: list[str] = []

    def receive(sender: type, task_result: Any, **kwargs: Any) -> None:
        ended.append(task_result.status)

    task_finished.connect(receive)
    result = host_tasks.add.enqueue(1)
    assert request_cancel(result.id) == "cancelled"
    finish(result, run_worker)
    task_finished.disconnect(receive)

    assert (result.status, [error.exception_class for error in result.errors]) == ("FAILED", [Cancelled])
    assert ended == []  # no worker saw it


def test_signals_carry_the_backend_and_the_result(host_tasks, run_worker):
    seen: list[tuple[str, Any, str, Any]] = []
    with ExitStack() as connected:
        for name, each in (("enqueued", task_enqueued), ("started", task_started), ("finished", task_finished)):

            def receive(sender: type, task_result: Any, name: str = name, **kwargs: Any) -> None:
                value = task_result.return_value if task_result.is_finished else None
                seen.append((name, sender, str(task_result.status), value))

            each.connect(receive)
            connected.callback(each.disconnect, receive)
        finish(host_tasks.add.enqueue(1), run_worker)
        wait_for(lambda: len(seen) == 3)

    assert seen == [
        ("enqueued", SwitchyardBackend, "READY", None),
        ("started", SwitchyardBackend, "RUNNING", None),
        ("finished", SwitchyardBackend, "SUCCESSFUL", 2),
    ]


def test_inside_a_transaction_a_task_is_enqueued_at_its_commit(host_tasks, run_worker, transactional_db):
    with transaction.atomic():
        result = host_tasks.add.enqueue(1)
        assert result.enqueued_at is None
        with pytest.raises(TaskResultDoesNotExist):
            default_task_backend.get_result(result.id)

    assert result.enqueued_at is not None
    assert finish(result, run_worker).return_value == 2


def test_a_task_of_a_transaction_that_is_rolled_back_is_not_enqueued(host_tasks, transactional_db):
    with transaction.atomic():
        result = host_tasks.add.enqueue(1)
        transaction.set_rollback(True)

    with pytest.raises(TaskResultDoesNotExist):
        default_task_backend.get_result(result.id)


def test_without_enqueue_on_commit_a_task_is_enqueued_at_once(on_backend, host_tasks, transactional_db):
    on_backend(ENQUEUE_ON_COMMIT=False)

    with transaction.atomic():
        result = host_tasks.add.enqueue(1)
        assert default_task_backend.get_result(result.id).status == "READY"
        transaction.set_rollback(True)


def test_options_of_the_actors_come_from_the_backend(on_backend, run_worker):
    broker = on_backend(OPTIONS={"actor_options": {"max_retries": 0, "time_limit": 5_000}})
    from tests.integration.tasks.host import tasks

    actor = broker.actors[f"{tasks.__name__}.fail"]
    result = finish(tasks.fail.using(queue_name="again").enqueue("no"), run_worker)

    assert (actor.options["max_retries"], actor.options["time_limit"], result.attempts) == (0, 5_000, 1)


def test_options_that_no_actor_can_have_are_refused_and_results_are_always_kept(on_backend):
    broker = on_backend(OPTIONS={"actor_options": {"store_results": False}})
    with pytest.raises(InvalidOption, match="max_retries"):
        on_backend(OPTIONS={"actor_options": {"max_retries": -1}})

    assert broker.actors["tests.integration.tasks.host.tasks.add"].options["store_results"] is True


def test_a_task_that_no_worker_imports_is_refused(host_tasks):
    with pytest.raises(InvalidTaskError, match=r"not known to workers.*add 'tests\.integration\.tasks\.test_api'"):
        task(_elsewhere).enqueue()

    declare_tasks()  # as at the start of a process in which that module was imported
    assert task(_elsewhere).enqueue().status == "READY"


def _elsewhere() -> None: ...


def test_checks_find_settings_that_cannot_be_used(on_backend, db):
    on_backend(QUEUES=["default", "nowhere"], OPTIONS={"databse": "x", "database": "replica"})

    found = [message for message in run_checks() if message.id and message.id.startswith("switchyard.E04")]
    by_backend = [message for backend in task_backends.all() for message in backend.check()]

    assert found == [] or found == by_backend  # with and without the app django_tasks
    assert sorted({message.id for message in by_backend}) == ["switchyard.E040"]
    assert "no queue" in str(by_backend[0]) and "nowhere" in str(by_backend[0])
