"""Batches: members of several queues, counted as they end, callbacks sent once; acts on them in room and commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from dramatiq.composition import pipeline

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.batches.services import Batch, NewBatch, batch, current_batch
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.interface import facilities as facilities_of
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.stores.batches import batch_of
from switchyard.bulk import runner, services
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.reconcile import reconcile_all
from switchyard.operations.findings.records import look_at_batches
from tests.factories.letters import requeue
from tests.integration.batches.conftest import Actors, figures, until

pytestmark = pytest.mark.django_db(transaction=True)
Count = Callable[[], int]
ROOM = "/admin/operations/batches/"


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


@pytest.fixture
def broker(facilities: Facilities) -> Any:
    """The project's own broker, whose yard the room shows."""
    return dramatiq.get_broker()


@pytest.fixture
def actors(broker: Any) -> Iterator[Actors]:
    known = set(broker.actors)
    yield Actors("default", "urgent", max_retries=0)
    for name in set(broker.actors) - known:
        del broker.actors[name]


@pytest.fixture
def half_failed(broker: Any, run_worker: Any, actors: Actors, count: Count) -> NewBatch:
    """A batch with two members that are done and two that are dead."""
    actors.refused = {1, 3}
    with batch("import of May", tags=["imports"], **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number) for number in range(4)))
    with run_worker("default", "urgent"):
        until(count, lambda: figures(jobs) == ("complete", 0, 2, 2, 0) and len(actors.called) == 2)
    reconcile_all()
    return jobs


def finish(act: BulkAct) -> BulkAct:
    act.refresh_from_db()
    while runner.take_step(act.pk, act.run) is not None:
        pass
    act.refresh_from_db()
    return act


def test_what_failed_in_a_batch_is_requeued_and_it_succeeds(
    broker: Any, run_worker: Any, actors: Actors, count: Count, half_failed: NewBatch, admin_client: Client
) -> None:
    with batch("another") as other:
        other.add(actors.work.message(1))
    with run_worker("default", "urgent"):
        until(count, lambda: figures(other)[3] == 1)
    reconcile_all()
    actors.refused = set()
    address = f"/admin/operations/bulk/begin/batch.retry/?batch={half_failed.id}"
    page = admin_client.get(address).content.decode()
    assert "Requeue 2 dead letters?" in page
    assert "2 done, 2 failed" in page
    admin_client.post(address, {"count": "2", "form_id": "a-form", "reason": ""})
    act = finish(BulkAct.objects.get())

    assert (act.state, act.done, act.skips) == ("done", 2, {})
    with run_worker("default", "urgent"):
        until(count, lambda: "on_success" in actors.called)
    assert figures(half_failed) == ("succeeded", 0, 4, 0, 0)
    assert DeadLetter.objects.filter(state="new").count() == 1
    assert set(AuditEntry.objects.values_list("act", flat=True)) == {"bulk.start", "batch.retry"}


def test_a_batch_is_cancelled_as_a_whole_and_takes_no_more_members(
    broker: Any, run_worker: Any, actors: Actors, count: Count
) -> None:
    with batch("import", **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number) for number in range(300)))
        jobs.add(actors.other.message(300))
    with batch("another") as other:
        other.add(actors.work.message(0))
    act = finish(services.start("batch.cancel", {"batch": jobs.id}, who=Who("ada", "page"), reason="wrong file"))
    count()

    assert (act.state, act.total, act.done) == ("done", 301, 301)
    assert figures(jobs) == ("complete", 0, 0, 0, 301)
    with pytest.raises(ActRefused, match="cancelled"):
        jobs.add(*(actors.work.message(number) for number in range(500)))
    with run_worker("default", "urgent"):
        until(count, lambda: figures(other)[0] == "succeeded" and actors.called)
    assert (actors.ran, actors.called) == ([0], ["on_complete"])


def test_the_room_shows_batches_and_their_members(half_failed: NewBatch, actors: Actors, admin_client: Client) -> None:
    listed = admin_client.get(ROOM).content.decode()
    page = admin_client.get(f"{ROOM}{half_failed.id}/").content.decode()
    done = admin_client.get(f"{ROOM}{half_failed.id}/?state=done").content.decode()

    assert "import of May" in listed
    assert "ended without success" in listed
    assert "imports" in listed
    store = facilities_of().batches
    assert store is not None
    for state, shown in (("failed", page), ("done", done)):
        members = store.members(half_failed.id, state).found  # type: ignore[arg-type]
        assert len(members) == 2
        assert all(id_ in shown for id_ in members)
    assert "Requeue what failed…" in page
    assert "Cancel what has not ended…" not in page
    job = next(iter(store.members(half_failed.id, "failed").found))
    assert f"{ROOM}{half_failed.id}/" in admin_client.get(f"/admin/switchyard_jobs/job/{job}/").content.decode()
    assert admin_client.get(f"{ROOM}{half_failed.id}/?state=odd").status_code == 404
    assert admin_client.get(f"{ROOM}{half_failed.id}/?cursor=odd").status_code == 404
    assert admin_client.get(f"{ROOM}none/").status_code == 404
    assert "There are no older ones" in admin_client.get(f"{ROOM}?before=1").content.decode()


def test_commands_show_batches_and_start_acts(half_failed: NewBatch, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*words: str) -> str:
        capsys.readouterr()
        call_command("switchyard", "batches", *words)
        return capsys.readouterr().out

    line = f"{half_failed.id}  import of May: ended without success, 2 done, 2 failed, 0 cancelled, 0 not ended"
    assert line in said("list")
    assert json.loads(said("list", "--json"))[0]["id"] == half_failed.id
    assert "on_success     not sent" in said("show", half_failed.id)
    assert said("show", half_failed.id, "--state", "failed").count("  default") == 2
    assert len(json.loads(said("show", half_failed.id, "--state", "done", "--json"))["members"]) == 2
    assert "started; see manage.py switchyard bulk show" in said("retry", half_failed.id, "--reason", "mended")
    assert BulkAct.objects.get().kind == "batch.retry"
    with pytest.raises(CommandError, match="no batch has this id"):
        said("show", "none")
    with pytest.raises(ValueError, match="write batch=ID alone"):
        services.start("batch.cancel", {}, who=Who("ada", "page"))


def test_a_batch_whose_callback_cannot_be_sent_is_a_finding(
    broker: Any, actors: Actors, count: Count, monkeypatch: pytest.MonkeyPatch
) -> None:
    [calm] = look_at_batches()
    assert (calm.severity, calm.code) == ("ok", "ok")
    monkeypatch.setattr(broker, "enqueue", lambda message, **named: message.no_such_field)
    with batch("import", on_complete=actors.call.message("on_complete")) as jobs:
        pass
    count()
    [calm] = look_at_batches()
    assert calm.code == "ok"
    monkeypatch.setattr(queries, "UNSENT_MS", -1)
    [found] = look_at_batches()

    assert (found.severity, found.code) == ("warning", "stuck")
    assert found.seen == "batch import does not go on: its on_complete cannot be sent"
    assert found.button is not None
    assert found.button.href == f"{ROOM}{jobs.id}/"


def test_a_batch_in_which_nothing_ends_for_a_day_is_a_finding(
    broker: Any, actors: Actors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("import", "another"):
        with batch(name) as jobs:
            jobs.add(actors.work.message(0))
    monkeypatch.setattr(queries, "UNCHANGED_MS", -1)
    [found] = look_at_batches()

    assert found.seen == (
        "batch import does not go on: 1 of its members have not ended, and none did for a day, and 1 other"
    )
    assert jobs.progress().open == 1
