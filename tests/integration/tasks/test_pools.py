"""Tasks written for ``django-tasks-db`` in pools of each kind, beside ``django-tasks-db`` itself; and their crashes."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import dramatiq
import pytest
from dramatiq import Message

from switchyard.middleware.crashes import Poison
from tests.integration.tasks.conftest import Host
from tests.waiting import wait_for

# For the differences that are said elsewhere, see docs/reference/django-tasks.md.
OTHER_WORDS = "unserialisable"


@pytest.fixture(scope="module")
def peer(host) -> dict[str, Any]:
    """The answers of ``django-tasks-db``, with its own worker."""
    host.run("database_settings", "manage.py", "migrate", "django_tasks_database", "-v0")
    return host.ask("database_settings", "default")


@pytest.fixture
def tasks(host, on_backend) -> Iterator[ModuleType]:
    """The host's tasks, enqueued from this process, run by the pools."""
    on_backend(ENQUEUE_ON_COMMIT=False)
    from tests.integration.tasks.host import tasks

    yield tasks


@pytest.mark.parametrize("queue", ["default", "threads", "greenlets"])
def test_tasks_of_another_backend_run_unchanged_with_the_same_results(host, peer, queue):
    ours = host.ask("settings", queue)

    expected = {name: answer for name, answer in peer.items() if name != "refused"}
    for answer in expected.values():
        answer["queue"] = queue
    expected["about"]["return_value"]["queue"] = queue
    if queue == "greenlets":
        assert ours["refused"] == {"sleep_and_add": "InvalidTaskError"}
        expected.pop("sleep_and_add")
    else:
        assert ours["refused"] == {}
    words = {"path": "builtins.TypeError", "last_line": "TypeError: Unsupported type: <class 'object'>"}
    expected[OTHER_WORDS]["errors"] = [words]
    assert {name: answer for name, answer in ours.items() if name != "refused"} == expected


def test_signals_are_sent_where_a_task_is_enqueued_started_and_ended(host, tasks):
    good, bad = tasks.add.enqueue(1), tasks.fail.using(queue_name="again").enqueue("no")

    wait_for(lambda: _ended(good) and _ended(bad))

    seen = wait_for(lambda: _signals(host, bad.id) if len(_signals(host, bad.id)) == 5 else None)
    assert seen == [*[("started", "RUNNING")] * 4, ("finished", "FAILED")]
    seen = wait_for(lambda: _signals(host, good.id)[1:] and _signals(host, good.id))
    assert seen == [("started", "RUNNING"), ("finished", "SUCCESSFUL")]


def _signals(host: Host, task_id: str) -> list[tuple[str, str]]:
    return [(note[1], note[4]) for note in host.notes() if note[0] == "signal" and note[5] == task_id]


def _ended(result: Any) -> bool:
    result.refresh()
    return bool(result.is_finished)


def test_a_task_is_retried_as_its_queue_says_and_knows_its_attempts(host, tasks):
    result = tasks.fail_twice.using(queue_name="again").enqueue("thrice")

    wait_for(lambda: _ended(result))

    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 3, 3)
    assert [error.exception_class for error in result.errors] == [tasks.OutOfPaper] * 2
    assert [error.traceback.strip().splitlines()[-1][-9:] for error in result.errors] == ["attempt 1", "attempt 2"]
    assert "in fail_twice" in result.errors[0].traceback
    assert all(error.traceback.startswith("Traceback (most recent call last)") for error in result.errors)
    assert result.started_at < result.last_attempted_at <= result.finished_at
    notes = [" ".join(note[2:]) for note in host.notes() if note[:2] == ["attempt", "thrice"]]
    assert notes == ["1 0", "2 1", "3 2"]


def test_a_task_that_runs_is_running_and_names_its_worker(host, tasks):
    file = host.folder / "go-on"
    result = tasks.wait_for_file.using(queue_name="threads").enqueue(str(file))

    wait_for(lambda: result.refresh() or result.status == "RUNNING")

    assert result.attempts == 1 and result.worker_ids[0]
    assert result.started_at is not None and result.finished_at is None
    with pytest.raises(ValueError, match="Task has not finished yet"):
        _ = result.return_value
    file.touch()
    wait_for(lambda: _ended(result))
    assert result.return_value == str(file)


@pytest.mark.parametrize("queue", ["default", "threads", "greenlets"])
def test_a_task_whose_worker_is_killed_has_not_ended_until_it_runs_again(host, tasks, queue):
    result = tasks.die_once.using(queue_name=queue).enqueue(f"dies-{queue}")
    seen = set()

    def ended() -> bool:
        over = _ended(result)
        seen.add(str(result.status))
        return over

    wait_for(ended)

    assert (result.status, result.return_value) == ("SUCCESSFUL", f"dies-{queue}")
    assert seen <= {"READY", "RUNNING", "SUCCESSFUL"}
    assert ["dies", f"dies-{queue}"] in host.notes()


def test_a_task_that_always_kills_its_worker_fails_in_the_end(host, tasks):
    result = tasks.die.using(queue_name="threads").enqueue("always")

    wait_for(lambda: _ended(result), 90)

    assert result.status == "FAILED"
    assert result.errors[0].exception_class is Poison
    with pytest.raises(ValueError, match="Task failed"):
        _ = result.return_value
    assert host.notes().count(["dies", "always"]) == 3
    assert wait_for(lambda: _signals(host, result.id)[-1][0] == "finished")


@pytest.mark.parametrize(
    "path", ["os.system", "tests.integration.tasks.host.tasks.note", "tests.integration.tasks.host.tasks.task"]
)
def test_a_message_that_names_what_is_no_task_runs_nothing(host, tasks, path):
    broker = dramatiq.get_broker()
    forged: Message[Any] = Message(
        queue_name="threads", actor_name=path, args=("forged",), kwargs={}, options={"task": {"backend": "default"}}
    )

    broker.enqueue(forged)

    def is_parked() -> bool:
        found = broker.switchyard.records.read(forged.message_id)
        return found is not None and (found.state, found.reason) == ("scheduled", "parked")

    wait_for(is_parked)
    assert not any("forged" in note for note in host.notes())


def test_urgent_tasks_run_before_others(host, tasks):
    file = host.folder / "release"
    holder = tasks.wait_for_file.enqueue(str(file))
    wait_for(lambda: ["waits", str(file)] in host.notes())

    words = {"late": -100, "middle": 0, "first": 100}
    results = [tasks.write_down.using(priority=words[word]).enqueue(word) for word in words]
    file.touch()
    wait_for(lambda: all(_ended(each) for each in (holder, *results)))

    assert [note[1] for note in host.notes() if note[0] == "ran"] == ["first", "middle", "late"]
    assert [each.task.priority for each in results] == [-100, 0, 100]
