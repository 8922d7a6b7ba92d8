"""Tasks of Django's task API in tests without a server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.db import transaction

from switchyard.tasks.backend import declare_tasks
from switchyard.testing import assert_enqueued, assert_nothing_enqueued, enqueued, in_memory, redelivered, run_enqueued
from tests.integration.tasks.host import tasks
from tests.integration.tasks.host.topology import YARD

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def on_memory(settings: Any) -> Iterator[None]:
    """The host's tasks on our backend, and the broker in memory with the host's yard."""
    settings.SWITCHYARD = replace(settings.SWITCHYARD, topology=YARD)
    options = {"modules": [tasks.__name__]}
    settings.TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend", "OPTIONS": options}}
    with in_memory():
        declare_tasks()
        yield


def test_a_task_runs_after_the_commit_and_its_result_is_read() -> None:
    with transaction.atomic():
        result = tasks.add.enqueue(40, right=2)
        assert_nothing_enqueued()
    [attempt] = run_enqueued()
    result.refresh()

    assert (attempt.outcome, attempt.actor) == ("succeeded", f"{tasks.__name__}.add")
    assert (result.status, result.return_value, result.attempts) == ("SUCCESSFUL", 42, 1)


def test_a_task_can_be_run_again_after_a_crash() -> None:
    tasks.add.enqueue(1)
    assert len(enqueued()) == 1

    assert enqueued(tasks.add) == assert_enqueued(tasks.add, args=(1,), count=1)  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match=r"for .*\.add\."):
        assert_nothing_enqueued(tasks.add)  # type: ignore[arg-type]
    assert redelivered() == [f"{tasks.__name__}.add"]
