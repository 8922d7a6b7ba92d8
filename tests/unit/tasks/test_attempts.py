"""Failed attempts that a task's message carries."""

from __future__ import annotations

from typing import Any

import pytest
from dramatiq import Message
from dramatiq.broker import MessageProxy

from switchyard.tasks import results
from switchyard.tasks.results import OPTION, TRACEBACKS, ResultRefused, TaskAttempts, failed_attempts


@pytest.fixture
def end_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    """End an attempt of a task with an exception, in a worker named ``here``."""
    monkeypatch.setattr(results, "task_at", lambda path: path if path == "a.task" else None)
    monkeypatch.setattr(results, "worker_of", lambda broker: "here")

    def end(message: MessageProxy, error: BaseException | None) -> None:
        broker: Any = None
        TaskAttempts().after_process_message(broker, message, exception=error)

    return end


def _message(actor: str = "a.task", **options: Any) -> MessageProxy:
    return MessageProxy(Message(queue_name="default", actor_name=actor, args=(), kwargs={}, options=options))


def test_a_failure_is_added_with_its_worker_and_its_class(end_with: Any) -> None:
    message = _message(task={"backend": "other"})

    end_with(message, ValueError("no"))
    end_with(message, KeyError("none"))

    assert message.options[OPTION]["backend"] == "other"
    assert [(each.worker, each.error) for each in failed_attempts(message.options)] == [
        ("here", "builtins.ValueError"),
        ("here", "builtins.KeyError"),
    ]


def test_the_option_does_not_grow_without_end(end_with: Any) -> None:
    message = _message()

    for _ in range(10):
        end_with(message, ValueError("é\ud800" * 10_000))

    found = failed_attempts(message.options)
    assert [bool(each.traceback) for each in found] == [False] * (10 - TRACEBACKS) + [True] * TRACEBACKS
    assert len(str(message.options).encode()) < 30_000


def test_a_return_value_that_cannot_be_kept_is_the_error_of_its_cause(end_with: Any) -> None:
    message, error = _message(), ResultRefused("a.task", "no JSON")
    error.__cause__ = TypeError("no JSON")

    end_with(message, error)

    assert failed_attempts(message.options)[0].error == "builtins.TypeError"


def test_a_success_and_the_failure_of_an_actor_write_nothing(end_with: Any) -> None:
    task, actor = _message(), _message("an_actor")

    end_with(task, None)
    end_with(actor, ValueError("no"))

    assert task.options == actor.options == {}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        [],
        "x",
        {"attempts": 3},
        {"attempts": [[1, 2], ["a", "b", "c", "d"]]},
        {"attempts": [["a", 10**30, "c", "d"], ["a", -1, "c", "d"]]},
    ],
)
def test_what_another_sender_wrote_is_no_attempt(value: Any) -> None:
    assert failed_attempts({OPTION: value}) == []
