"""Results of tasks as records of jobs show them, and the names of the task API."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import django
import pytest
from django_tasks.backends.dummy import DummyBackend
from django_tasks.base import Task, TaskResultStatus
from dramatiq import Message
from dramatiq.broker import MessageProxy

from switchyard.broker.stores.job_record import Job, job_of
from switchyard.middleware.crashes import Poison
from switchyard.tasks import task_actors
from switchyard.tasks.task_actors import OPTION, failed_attempts, result_of_job

# Modules of Django 6 by their names there, made of the package that it was before.
DJANGO_6 = """
import importlib.machinery, sys, types
import django_tasks, django_tasks.base, django_tasks.exceptions, django_tasks.signals, django_tasks.utils
from django_tasks.backends import base as backends_base

def module(name, **members):
    made = sys.modules[name] = types.ModuleType(name)
    made.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
    made.__dict__.update(members)

public = {name: value for name, value in vars(django_tasks).items() if not name.startswith("__")}
module("django.tasks", task_backends=django_tasks.task_backends)
module("django.tasks.base", **{name: vars(django_tasks.base)[name] for name in (
    "TASK_MAX_PRIORITY", "TASK_MIN_PRIORITY", "Task", "TaskContext", "TaskError", "TaskResult", "TaskResultStatus")})
module("django.tasks.backends")
module("django.tasks.backends.base", BaseTaskBackend=backends_base.BaseTaskBackend)
module("django.tasks.exceptions", InvalidTask=django_tasks.exceptions.InvalidTaskError,
       TaskResultDoesNotExist=django_tasks.exceptions.TaskResultDoesNotExist)
module("django.tasks.signals", **{name: vars(django_tasks.signals)[name] for name in (
    "task_enqueued", "task_finished", "task_started")})
module("django.utils.json", normalize_json=django_tasks.utils.normalize_json)
given = list(sys.modules)
from switchyard.tasks.task_actors import InvalidTask, Task, normalize_json
assert InvalidTask is sys.modules["django.tasks.exceptions"].InvalidTask
assert Task is sys.modules["django.tasks.base"].Task
import django
django.setup()
from switchyard.tasks import SwitchyardBackend
assert issubclass(SwitchyardBackend, sys.modules["django.tasks.backends.base"].BaseTaskBackend)
print("from Django 6")
"""
WITHOUT = """
import sys
sys.modules["django_tasks"] = None
import django
django.setup()
assert not any(name.startswith("switchyard.tasks") for name in sys.modules)
try:
    import switchyard.tasks
except ModuleNotFoundError as error:
    print(error.__notes__[0])
"""


def work(word: str) -> None:
    """Do nothing."""


@pytest.fixture
def declared(settings: Any) -> Iterator[Task]:
    """A task of a backend that takes any."""
    settings.TASKS = {"default": {"BACKEND": f"{DummyBackend.__module__}.DummyBackend", "QUEUES": []}}
    yield Task(func=work)


def _record(state: str, **known: Any) -> Job:
    message = {"actor": "x", "sent_at": 1_000, "args": ["a"], "options": known.pop("options", {})}
    return job_of("an-id", "mail", message, state=state, reason=None, attempts=1, generation=0, **known)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("scheduled", "READY"),
        ("queued", "READY"),
        ("retrying", "READY"),
        ("running", "RUNNING"),
        ("succeeded", "SUCCESSFUL"),
        ("cancelled", "FAILED"),
        ("expired", "FAILED"),
        ("dead", "FAILED"),
    ],
)
def test_every_state_of_a_job_is_a_status(declared, state, status):
    assert result_of_job(declared, _record(state)).status == TaskResultStatus[status]


def test_a_record_says_what_was_sent(declared):
    options = {"priority": -40, "task": {"run_after": 86_400_000}}

    result = result_of_job(declared, _record("queued", options=options))

    assert (result.id, result.args, result.kwargs, result.backend) == ("an-id", ["a"], {}, "default")
    assert (result.task.queue_name, result.task.priority) == ("mail", 40)
    assert result.task.run_after == datetime(1970, 1, 2, tzinfo=UTC)
    assert result.enqueued_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_the_first_attempt_is_the_start_the_last_one_is_named_and_what_none_noted_is_in_the_record(declared):
    attempts = [["one", 1_000, "builtins.ValueError", "trace"], ["two", 2_000, "builtins.KeyError", ""]]
    record = _record("running", options={"task": {"attempts": attempts}}, started_at=3_000, worker="three")
    dead = _record("dead", error={"type": "Poison", "message": "took its worker down"})

    result, [error] = result_of_job(declared, record), result_of_job(declared, dead).errors

    assert (result.started_at, result.last_attempted_at) == (task_actors.moment(1_000), task_actors.moment(3_000))
    assert (result.worker_ids, result.attempts) == (["one", "two", "three"], 3)
    assert [error.exception_class for error in result.errors] == [ValueError, KeyError]
    assert (error.exception_class, error.traceback) == (Poison, "took its worker down")


@pytest.fixture
def end_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """End an attempt of a task with an exception, in a worker named ``here``."""
    monkeypatch.setitem(task_actors.TASKS, "a.task", "a.task")
    monkeypatch.setattr(task_actors, "worker_of", lambda broker: "here")

    def end(message: MessageProxy, error: BaseException | None) -> None:
        broker: Any = None
        task_actors.TaskAttempts().after_process_message(broker, message, exception=error)

    return end


def _message(actor: str = "a.task", **options: Any) -> MessageProxy:
    return MessageProxy(Message(queue_name="default", actor_name=actor, args=(), kwargs={}, options=options))


def test_a_failure_is_added_with_its_worker_and_the_class_of_its_cause_and_nothing_else_is(end_with):
    message, refused, succeeded, actor = _message(task={"backend": "other"}), _message(), _message(), _message("other")
    error = task_actors.ResultRefused("a.task", "no JSON")
    error.__cause__ = TypeError("no JSON")

    end_with(message, ValueError("no"))
    end_with(message, KeyError("none"))
    end_with(refused, error)
    end_with(succeeded, None)
    end_with(actor, ValueError("no"))

    assert message.options[OPTION]["backend"] == "other"
    errors = [("here", "builtins.ValueError"), ("here", "builtins.KeyError")]
    assert [(each.worker, each.error) for each in failed_attempts(message.options)] == errors
    assert failed_attempts(refused.options)[0].error == "builtins.TypeError"
    assert succeeded.options == actor.options == {}


def test_the_option_does_not_grow_without_end(end_with):
    message = _message()

    for _ in range(10):
        end_with(message, ValueError("é\ud800" * 10_000))

    found = failed_attempts(message.options)
    assert [bool(each.traceback) for each in found] == [False] * (10 - task_actors.TRACEBACKS) + [
        True
    ] * task_actors.TRACEBACKS
    assert len(str(message.options).encode()) < 30_000


@pytest.mark.parametrize(
    "value",
    [
        *(None, 1, [], "x", {"attempts": 3}),
        {"attempts": [[1, 2], ["a", "b", "c", "d"]]},
        {"attempts": [["a", 10**30, "c", "d"], ["a", -1, "c", "d"]]},
    ],
)
def test_what_another_sender_wrote_is_no_attempt(value):
    assert failed_attempts({OPTION: value}) == []


def _run(code: str) -> str:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "project.settings"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_django_6_has_the_names_under_a_path_of_its_own():
    assert _run(DJANGO_6) == "from Django 6\n"


@pytest.mark.skipif(django.VERSION >= (6,), reason="Django 6 has the task API")
def test_a_project_without_the_task_api_starts_and_is_told_what_to_install():
    assert _run(WITHOUT) == "Django before 6 has no task API: install django-tasks, or the extra tasks\n"


@pytest.mark.parametrize("name", task_actors.__all__)
def test_every_name_is_there(name):
    assert getattr(task_actors, name) is not None
