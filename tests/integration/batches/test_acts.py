"""A batch in the room, in the API and in commands: seen with its members, cancelled, and requeued as a whole."""

import json
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.batches import queries
from switchyard.batches.services import NewBatch, batch
from switchyard.broker.errors import ActRefused
from switchyard.broker.interface import facilities as facilities_of
from switchyard.bulk import runner, services
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters.acts import reconcile_all
from switchyard.dead_letters.models import DeadLetter
from switchyard.operations.findings.records import look_at_batches
from tests.integration.batches.conftest import Actors, figures

pytestmark = pytest.mark.django_db(transaction=True)
Count = Callable[[], int]
ROOM = "/admin/operations/batches/"


@pytest.fixture
def broker(facilities) -> Any:
    """The project's own broker, whose yard the room shows."""
    return dramatiq.get_broker()


@pytest.fixture
def actors(broker) -> Actors:
    return Actors("default", "urgent", max_retries=0)


@pytest.fixture
def half_failed(broker, actors, run_until) -> NewBatch:
    """A batch with two members that are done and two that are dead."""
    actors.refused = {1, 3}
    with batch("import of May", tags=["imports"], **actors.callbacks()) as jobs:
        jobs.add(*(actors.work.message(number) for number in range(4)))
    run_until(lambda: figures(jobs) == ("complete", 0, 2, 2, 0) and len(actors.called) == 2, "default", "urgent")
    reconcile_all()
    return jobs


def finish(act: BulkAct) -> BulkAct:
    act.refresh_from_db()
    while runner.take_step(act.pk, act.run) is not None:
        pass
    act.refresh_from_db()
    return act


def test_what_failed_in_a_batch_is_requeued_and_it_succeeds(actors, count, half_failed, admin_client, run_until):
    with batch("another") as other:
        other.add(actors.work.message(1))
    run_until(lambda: figures(other)[3] == 1, "default", "urgent")
    reconcile_all()
    actors.refused = set()
    address = f"/admin/operations/bulk/begin/batch.retry/?batch={half_failed.id}"
    page = admin_client.get(address).content.decode()
    assert "Requeue 2 dead letters?" in page
    assert "2 done, 2 failed" in page
    admin_client.post(address, {"count": "2", "form_id": "a-form", "reason": ""})
    act = finish(BulkAct.objects.get())

    assert (act.state, act.done, act.skips) == ("done", 2, {})
    run_until(lambda: "on_success" in actors.called, "default", "urgent")
    assert figures(half_failed) == ("succeeded", 0, 4, 0, 0)
    assert DeadLetter.objects.filter(state="new").count() == 1
    assert set(AuditEntry.objects.values_list("act", flat=True)) == {"bulk.start", "batch.retry"}


def test_a_batch_is_cancelled_as_a_whole_and_takes_no_more_members(actors, count, run_until):
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
    run_until(lambda: figures(other)[0] == "succeeded" and actors.called, "default", "urgent")
    assert (actors.ran, actors.called) == ([0], ["on_complete"])


def test_the_room_shows_batches_and_their_members(half_failed, admin_client):
    listed = admin_client.get(ROOM).content.decode()
    page = admin_client.get(f"{ROOM}{half_failed.id}/").content.decode()
    done = admin_client.get(f"{ROOM}{half_failed.id}/?state=done").content.decode()

    assert "import of May" in listed
    assert "ended without success" in listed
    assert "imports" in listed
    store = facilities_of().batches
    for state, shown in (("failed", page), ("done", done)):
        members = store.members(half_failed.id, state).found
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


def test_commands_show_batches_and_start_acts(half_failed, capsys):
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


def test_a_batch_whose_callback_cannot_be_sent_is_a_finding(broker, actors, count, monkeypatch):
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
    assert found.button.href == f"{ROOM}{jobs.id}/"


def test_a_batch_in_which_nothing_ends_for_a_day_is_a_finding(actors, monkeypatch):
    for name in ("import", "another"):
        with batch(name) as jobs:
            jobs.add(actors.work.message(0))
    monkeypatch.setattr(queries, "UNCHANGED_MS", -1)
    [found] = look_at_batches()

    assert found.seen == (
        "batch import does not go on: 1 of its members have not ended, and none did for a day, and 1 other"
    )
    assert jobs.progress().open == 1
