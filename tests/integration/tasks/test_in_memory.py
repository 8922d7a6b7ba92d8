"""Tasks in tests of a team, on the broker in memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from switchyard.testing import in_memory, run_enqueued
from tests.integration.tasks.conftest import OnBackend
from tests.integration.tasks.names import task_finished


@pytest.fixture
def tasks(on_backend: OnBackend) -> ModuleType:
    """The host's tasks on our backend."""
    on_backend()
    from tests.integration.tasks.host import tasks

    return tasks


def test_tasks_run_without_a_server(tasks: ModuleType, db: None) -> None:
    ended: list[tuple[str, str]] = []

    def receive(sender: type, task_result: Any, **kwargs: Any) -> None:
        ended.append((task_result.task.name, task_result.status))

    task_finished.connect(receive)
    with in_memory():
        added, twice = tasks.add.enqueue(1, right=2), tasks.fail_twice.using(queue_name="again").enqueue("memory")
        assert added.status == "READY"
        run_enqueued(raises=False, delayed=True)
        added.refresh()
        twice.refresh()
    task_finished.disconnect(receive)

    assert (added.status, added.return_value) == ("SUCCESSFUL", 3)
    assert (twice.status, twice.attempts, len(twice.errors)) == ("SUCCESSFUL", 3, 2)
    assert ended == [("add", "SUCCESSFUL"), ("fail_twice", "SUCCESSFUL")]
