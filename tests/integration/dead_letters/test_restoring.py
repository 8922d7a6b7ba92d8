"""A discarded letter can be restored for 90 days; a note stays in its history."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.test import Client
from django.utils import timezone
from dramatiq.actor import Actor

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.interface import Facilities
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.bulk import runner, services
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters import acts, projection, reconcile
from switchyard.dead_letters.models import DeadLetter
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db
Bury = Callable[..., Letter]


def discarded(bury: Bury, **changes: Any) -> Letter:
    made = bury(**changes)
    assert acts.act_on(made.id, "discard", by="a.lind", reason="duplicate") == ""
    return made


def test_restored_letter_is_as_it_was(bury: Bury, facilities: Facilities) -> None:
    made = discarded(bury)
    assert facilities.transport.find_dead_letter("default", made.id) is None

    result = acts.act_on(made.id, "restore", by="b.berg", reason="it was none")

    assert result == ""
    assert facilities.transport.find_dead_letter("default", made.id) == made
    row = DeadLetter.objects.get()
    assert (row.state, row.state_by, row.kept) == ("new", "b.berg", "")
    assert [entry["act"] for entry in row.history] == ["discard", "restore"]


@pytest.mark.django_db(transaction=True)
def test_restored_and_requeued_letter_runs_although_its_id_was_finished_just_now(
    bury: Bury, facilities: Facilities, fail_always: Actor[Any, Any], run_worker: Callable[..., Any]
) -> None:
    ran: list[int] = []
    fail_always.fn = lambda number=7, address="": ran.append(number)
    made = discarded(bury)
    acts.act_on(made.id, "restore", by="b.berg")
    acts.act_on(made.id, "requeue", by="b.berg")

    with run_worker("default"):
        wait_for(lambda: ran == [7])
        wait_for(lambda: facilities.transport.find_message("default", made.id) is None)

    assert ran == [7]


def test_letter_of_a_bulk_discard_can_be_restored(bury: Bury, facilities: Facilities) -> None:
    made = bury()
    projection.project(made)
    act = services.start("letter.discard", {}, who=Who("a.lind", "page"), reason="duplicate")
    while runner.take_step(act.pk, act.run) is not None:
        pass
    assert DeadLetter.objects.get().state == "discarded"

    assert acts.act_on(made.id, "restore", by="b.berg") == ""

    assert facilities.transport.find_dead_letter("default", made.id) == made


def test_restore_interrupted_before_its_row_is_finished_by_the_reconciler(bury: Bury, facilities: Facilities) -> None:
    made = discarded(bury)
    assert facilities.transport.restore(made)
    assert facilities.transport.restore(made), "repeated"

    reconcile.reconcile_all()

    assert DeadLetter.objects.get().state == "new"
    assert facilities.transport.stats("default").dead == 1


def test_letter_that_was_not_discarded_or_has_no_copy_is_refused(bury: Bury) -> None:
    opened = bury()
    assert "is new already" in acts.act_on(opened.id, "restore", by="a.lind")
    made = discarded(bury)
    DeadLetter.objects.filter(message_id=made.id).update(kept="")

    assert "kept no copy" in acts.act_on(made.id, "restore", by="a.lind")


def test_copy_is_erased_with_the_row_after_90_days(bury: Bury) -> None:
    discarded(bury)
    DeadLetter.objects.update(state_at=timezone.now() - timedelta(days=91))

    reconcile.reconcile_all()

    assert not DeadLetter.objects.exists()


def test_page_restores_and_notes(bury: Bury, operator: User, client: Client, facilities: Facilities) -> None:
    made = discarded(bury)
    page = f"/admin/switchyard_dead_letters/deadletter/{DeadLetter.objects.get().pk}/"
    assert "Restore letter" in client.get(f"{page}change/").content.decode()
    assert made.message["kwargs"] == {"number": 7}

    assert client.get(f"{page}restore/do/").status_code == 405
    client.post(f"{page}restore/do/")
    client.post(f"{page}note/", {"text": "waits for <rates>"})

    shown = client.get(f"{page}change/").content.decode()
    assert "waits for &lt;rates&gt;" in shown
    assert facilities.transport.stats("default").dead == 1
    assert set(AuditEntry.objects.values_list("act", "count")) >= {("letter.restore", 1), ("letter.note", 1)}
    operator.user_permissions.clear()
    for name in ("restore/do", "note", "edit"):
        assert client.post(f"{page}{name}/").status_code == 403


def test_the_list_of_discarded_letters_restores_a_group(
    bury: Bury, operator: User, client: Client, facilities: Facilities
) -> None:
    for _ in range(2):
        discarded(bury)
    listed = "/admin/switchyard_dead_letters/deadletter/"
    assert 'href="?state=discarded"' in client.get(listed).content.decode()

    page = client.get(listed, {"state": "discarded"}).content.decode()
    (address,) = re.findall(r'href="([^"]+)">Restore 2…', page)
    assert "Restore 2 discarded letters?" in client.get(address).content.decode()
    assert facilities.transport.stats("default").dead == 0
    client.post(address, {"count": "2"})
    act = BulkAct.objects.get()
    while runner.take_step(act.pk, act.run) is not None:
        pass

    assert facilities.transport.stats("default").dead == 2
    assert AuditEntry.objects.filter(act="letter.restore", count=2).exists()
    assert "No letter was discarded" in client.get(listed, {"state": "discarded"}).content.decode()
    operator.user_permissions.set(Permission.objects.filter(codename__in=["view_deadletter", "requeue_deadletter"]))
    assert client.get(address).status_code == client.post(address, {"count": "2"}).status_code == 403


def test_commands_restore_and_note(bury: Bury, capsys: pytest.CaptureFixture[str]) -> None:
    made = discarded(bury)

    call_command("switchyard", "deadletters", "restore", made.id, "--reason", "it was none")
    call_command("switchyard", "deadletters", "note", made.id, "waits for the rates")

    out = capsys.readouterr().out
    assert "Restored 1 dead letter." in out
    assert "Noted on fail_always" in out
    assert DeadLetter.objects.get().history[-1]["note"] == "waits for the rates"
    with pytest.raises(SystemExit):
        call_command("switchyard", "deadletters", "restore", made.id)
    with pytest.raises(CommandError, match="The note is empty"):
        call_command("switchyard", "deadletters", "note", made.id, " ")
