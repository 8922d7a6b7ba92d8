"""Batches with the broker in memory: counted when nothing is left to run, with the callbacks of the real ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities
from switchyard.jobs.services import request_cancel
from switchyard.testing import MemoryBroker, assert_enqueued, dead_letters, in_memory, run_enqueued
from tests.factories.letters import requeue


class Actors:
    """Actors that note what they do; ``refused`` are the numbers that fail."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.called: list[str] = []
        made = self

        @dramatiq.actor(queue_name="default", max_retries=0)
        def member(number: int, adds: int = 0) -> None:
            if number in made.refused:
                raise RuntimeError("no paper")
            batch = current_batch()
            batch.add(*(made.member.message(100 + more) for more in range(adds)))

        @dramatiq.actor(queue_name="urgent")
        def called(name: str) -> None:
            batch = current_batch()
            made.called.append(f"{name} {batch.progress().done}")

        self.member, self.call = member, called

    def callbacks(self) -> dict[str, Any]:
        return {name: self.call.message(name) for name in ("on_success", "on_failure", "on_complete")}


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    with in_memory() as yard:
        yield yard.broker


@pytest.fixture
def actors(broker: MemoryBroker) -> Iterator[Actors]:
    yield Actors()
    for name in ("member", "called"):
        del broker.actors[name]


def test_members_run_and_then_the_callbacks(actors: Actors) -> None:
    with batch("import", tags=["a"], **actors.callbacks()) as jobs:
        jobs.add(actors.member.message(1, adds=2), actors.member.message(2))
    assert_enqueued(actors.member, count=2)
    assert (jobs.progress().state, jobs.progress().open) == ("open", 2)
    ran = run_enqueued()

    assert [attempt.outcome for attempt in ran] == ["succeeded"] * 6
    assert sorted(actors.called) == ["on_complete 4", "on_success 4"]
    found = jobs.progress()
    assert (found.state, found.done, found.name, found.tags) == ("succeeded", 4, "import", ("a",))
    run_enqueued()
    assert len(actors.called) == 2
    with pytest.raises(ActRefused, match="takes no more members"):
        Batch(jobs.id).add(actors.member.message(3))


def test_a_failed_member_is_requeued_and_the_batch_succeeds(actors: Actors, broker: MemoryBroker) -> None:
    actors.refused = {1}
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(actors.member.message(1), actors.member.message(2))
    run_enqueued(raises=False)
    assert sorted(actors.called) == ["on_complete 1", "on_failure 1"]
    [dead] = dead_letters()
    actors.refused = set()
    requeue(facilities(broker).transport, "default", dead.id)
    run_enqueued()

    assert sorted(actors.called) == ["on_complete 1", "on_failure 1", "on_success 2"]
    assert jobs.progress().state == "succeeded"


def test_a_cancelled_member_is_counted_and_a_block_that_raises_sends_nothing(actors: Actors) -> None:
    with batch("import", **actors.callbacks()) as jobs:
        cancelled, _ = jobs.add(actors.member.message(1), actors.member.message(2))
    assert request_cancel(cancelled.message_id) == "cancelled"
    with pytest.raises(ZeroDivisionError), batch("another", **actors.callbacks()) as other:
        other.add(actors.member.message(3))
        raise ZeroDivisionError
    run_enqueued()

    assert actors.called == ["on_complete 1"]
    assert (jobs.progress().done, jobs.progress().cancelled) == (1, 1)
    with pytest.raises(ActRefused, match="no batch has this id"):
        other.progress()
