"""Batches: members of several queues, counted as they end, and callbacks that are sent once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from dramatiq.composition import pipeline

from switchyard.batches.services import Batch, batch, current_batch
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.batches import batch_of
from tests.factories.letters import requeue
from tests.integration.batches.conftest import Actors, figures, until

pytestmark = pytest.mark.django_db(transaction=True)
Count = Callable[[], int]


def test_members_of_two_queues_are_counted_and_two_callbacks_are_sent(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    with batch("import", tags=["a"], **actors.callbacks()) as jobs:
        sent = jobs.add(*(actors.work.message(number) for number in range(5)), actors.other.message(5))

    assert figures(jobs) == ("open", 6, 0, 0, 0)
    assert {batch_of(message.message_id) for message in sent} == {jobs.id}
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)
        count()
    assert sorted(actors.ran) == list(range(6))
    assert sorted(actors.called) == ["on_complete", "on_success"]
    found = jobs.progress()
    assert (found.name, found.tags, found.state, found.done, found.total) == ("import", ("a",), "succeeded", 6, 6)
    assert set(found.sent) == {"on_complete", "on_success"}


def test_a_dead_member_has_failed_until_it_was_requeued_and_succeeded(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    actors.refused = {1}
    with batch("import", **actors.callbacks()) as jobs:
        _, dead = jobs.add(actors.work.message(0), actors.work.message(1))
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)
        before = sorted(actors.called), figures(jobs)
        actors.refused = set()
        requeue(facilities(broker).transport, "work", dead.message_id)
        until(count, lambda: len(actors.called) == 3)
        count()

    assert before == (["on_complete", "on_failure"], ("complete", 0, 1, 1, 0))
    assert sorted(actors.called) == ["on_complete", "on_failure", "on_success"]
    assert figures(jobs) == ("succeeded", 0, 2, 0, 0)


def test_a_member_adds_members_while_it_runs(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number, adds=3) for number in range(4)))
    with run_worker(broker=broker):
        until(count, lambda: "on_success" in actors.called)

    assert figures(jobs) == ("succeeded", 0, 16, 0, 0)
    assert len(actors.ran) == 16


def test_a_batch_takes_members_from_outside_until_it_has_succeeded(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    with batch("import") as jobs:
        jobs.add(actors.work.message(0))
    Batch(jobs.id).add(actors.other.message(1))
    assert figures(jobs)[1] == 2
    with run_worker(broker=broker):
        until(count, lambda: figures(jobs)[0] == "succeeded")

    with pytest.raises(ActRefused, match="takes no more members"):
        Batch(jobs.id).add(actors.other.message(2))
    with pytest.raises(ActRefused, match="no batch has this id"):
        Batch("0123456789ab").add(actors.other.message(2))
    with pytest.raises(ActRefused, match="no batch has this id"):
        Batch("0123456789ab").progress()


def test_a_cancelled_member_is_neither_done_nor_failed(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    transport = facilities(broker).transport
    with batch("import", **actors.callbacks()) as jobs:
        waits, later = jobs.add(actors.work.message(0), actors.work.message(1))
    assert transport.cancel("work", waits.message_id) == "cancelled"
    count()
    assert figures(jobs) == ("open", 1, 0, 0, 1)
    with run_worker(broker=broker):
        until(count, lambda: actors.called)
        count()

    assert actors.called == ["on_complete"]
    assert (actors.ran, figures(jobs)) == ([1], ("complete", 0, 1, 0, 1))
    assert later.message_id != waits.message_id


def test_an_empty_batch_has_succeeded(broker: RedisBroker, run_worker: Any, actors: Actors, count: Count) -> None:
    with batch("import", **actors.callbacks()) as jobs:
        pass
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)

    assert figures(jobs)[0] == "succeeded"


def test_a_block_that_raises_sends_nothing(broker: RedisBroker, actors: Actors) -> None:
    with pytest.raises(ZeroDivisionError), batch("import") as jobs:
        jobs.add(actors.work.message(0))
        raise ZeroDivisionError

    assert facilities(broker).transport.stats("work").live.waiting == 0
    with pytest.raises(ActRefused):
        jobs.progress()


def test_a_block_that_raises_after_500_members_does_not_succeed(
    broker: RedisBroker, run_worker: Any, actors: Actors, count: Count
) -> None:
    with pytest.raises(ZeroDivisionError), batch("import", **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number) for number in range(501)))
        raise ZeroDivisionError
    with run_worker(broker=broker):
        until(count, lambda: len(actors.called) == 2)

    assert sorted(actors.called) == ["on_complete", "on_failure"]
    assert figures(jobs) == ("complete", 0, 500, 0, 0)


def test_what_cannot_be_a_batch_is_refused(broker: RedisBroker, actors: Actors) -> None:
    with pytest.raises(ValueError, match="name is ''"):
        batch("")
    with pytest.raises(ValueError, match="tags are"):
        batch("import", tags=[1])  # type: ignore[list-item]
    with batch("import") as jobs, pytest.raises(ActRefused, match="not a member"):
        steps = pipeline([actors.work.message(1), actors.work.message(2)])
        jobs.add(steps.messages[0])
    with batch("import") as jobs, pytest.raises(TypeError, match=r"an Actor is not a message; write work\.message\("):
        jobs.add(actors.work)
    with batch("import") as jobs, pytest.raises(ActRefused, match=r"was sent already, .* twice; write work\.message\("):
        jobs.add(actors.work.send(1))
    with pytest.raises(ActRefused, match="was sent already"):
        batch("import", on_success=actors.work.send(1))
    assert current_batch() is None
