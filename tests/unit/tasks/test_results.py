"""Results of tasks as records of jobs show them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django_tasks.backends.dummy import DummyBackend
from django_tasks.base import Task, TaskResultStatus

from switchyard.broker.stores.job_record import Job, job_of
from switchyard.middleware.crashes import Poison
from switchyard.tasks.results import moment, result_of_record


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
def test_every_state_of_a_job_is_a_status(declared: Task, state: str, status: str) -> None:
    assert result_of_record(declared, _record(state)).status == TaskResultStatus[status]


def test_a_record_says_what_was_sent(declared: Task) -> None:
    options = {"priority": -40, "task": {"run_after": 86_400_000}}

    result = result_of_record(declared, _record("queued", options=options))

    assert (result.id, result.args, result.kwargs, result.backend) == ("an-id", ["a"], {}, "default")
    assert (result.task.queue_name, result.task.priority) == ("mail", 40)
    assert result.task.run_after == datetime(1970, 1, 2, tzinfo=UTC)
    assert result.enqueued_at == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


def test_the_first_attempt_is_the_start_and_the_last_one_is_named(declared: Task) -> None:
    attempts = [["one", 1_000, "builtins.ValueError", "trace"], ["two", 2_000, "builtins.KeyError", ""]]
    record = _record("running", options={"task": {"attempts": attempts}}, started_at=3_000, worker="three")

    result = result_of_record(declared, record)

    assert (result.started_at, result.last_attempted_at) == (moment(1_000), moment(3_000))
    assert (result.worker_ids, result.attempts) == (["one", "two", "three"], 3)
    assert [error.exception_class for error in result.errors] == [ValueError, KeyError]


def test_a_failure_that_no_attempt_noted_is_taken_from_the_record(declared: Task) -> None:
    record = _record("dead", error={"type": "Poison", "message": "took its worker down"})

    [error] = result_of_record(declared, record).errors

    assert (error.exception_class, error.traceback) == (Poison, "took its worker down")
