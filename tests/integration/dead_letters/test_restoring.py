"""Letters that are restored after a discard, noted, or requeued with edited arguments."""

import html
import json
import re
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.core.management.base import CommandError

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.interface import facilities
from switchyard.broker.queue.json_body import LIMIT_BYTES
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.bulk import services
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters import acts, projection
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.calls import CallArguments
from switchyard.jobs.passport.again import edited_call, requeue_edited
from switchyard.payload import shown_arguments
from tests.factories.letters import letter
from tests.integration.bulk.conftest import finished
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db


def discarded(bury: Any, **changes: Any) -> Letter:
    made = bury(**changes)
    assert acts.act_on(made.id, "discard", by="a.lind", reason="duplicate") == ""
    return made


def test_restored_letter_is_as_it_was(bury, facilities):
    made = discarded(bury)
    assert facilities.transport.find_dead_letter("default", made.id) is None

    assert acts.act_on(made.id, "restore", by="b.berg", reason="it was none") == ""
    assert facilities.transport.find_dead_letter("default", made.id) == made
    row = DeadLetter.objects.get()
    assert (row.state, row.state_by, row.kept) == ("new", "b.berg", "")
    assert [entry["act"] for entry in row.history] == ["discard", "restore"]


@pytest.mark.django_db(transaction=True)
def test_restored_and_requeued_letter_runs_although_its_id_was_finished_just_now(
    bury, facilities, fail_always, run_worker
):
    ran: list[int] = []
    fail_always.fn = lambda number=7, address="": ran.append(number)
    made = discarded(bury)
    acts.act_on(made.id, "restore", by="b.berg")
    acts.act_on(made.id, "requeue", by="b.berg")

    with run_worker("default"):
        wait_for(lambda: ran == [7])
        wait_for(lambda: facilities.transport.find_message("default", made.id) is None)

    assert ran == [7]


def test_letter_of_a_bulk_discard_can_be_restored(bury, facilities):
    made = bury()
    projection.project(made)
    act = services.start("letter.discard", {}, who=Who("a.lind", "page"), reason="duplicate")
    finished(act)
    assert DeadLetter.objects.get().state == "discarded"

    assert acts.act_on(made.id, "restore", by="b.berg") == ""

    assert facilities.transport.find_dead_letter("default", made.id) == made


def test_restore_interrupted_before_its_row_is_finished_by_the_reconciler(bury, facilities):
    made = discarded(bury)
    assert facilities.transport.restore(made)
    assert facilities.transport.restore(made), "repeated"

    acts.reconcile_all()

    assert (DeadLetter.objects.get().state, facilities.transport.stats("default").dead) == ("new", 1)


def test_letter_that_was_not_discarded_or_has_no_copy_is_refused(bury):
    assert "is new already" in acts.act_on(bury().id, "restore", by="a.lind")
    made = discarded(bury)
    DeadLetter.objects.filter(message_id=made.id).update(kept="")

    assert "kept no copy" in acts.act_on(made.id, "restore", by="a.lind")


def test_page_restores_and_notes(bury, operator, client, facilities):
    made = discarded(bury)
    page = f"/admin/switchyard_dead_letters/deadletter/{DeadLetter.objects.get().pk}/"
    assert "Restore letter" in client.get(f"{page}change/").content.decode()
    assert made.message["kwargs"] == {"number": 7}

    assert client.get(f"{page}restore/do/").status_code == 405
    client.post(f"{page}restore/do/")
    client.post(f"{page}note/", {"text": "waits for <rates>"})

    assert "waits for &lt;rates&gt;" in client.get(f"{page}change/").content.decode()
    assert facilities.transport.stats("default").dead == 1
    assert set(AuditEntry.objects.values_list("act", "count")) >= {("letter.restore", 1), ("letter.note", 1)}
    operator.user_permissions.clear()
    for name in ("restore/do", "note", "edit"):
        assert client.post(f"{page}{name}/").status_code == 403


def test_the_list_of_discarded_letters_restores_a_group(bury, operator, client, facilities):
    for _ in range(2):
        discarded(bury)
    listed = "/admin/switchyard_dead_letters/deadletter/"
    assert 'href="?state=discarded"' in client.get(listed).content.decode()

    page = client.get(listed, {"state": "discarded"}).content.decode()
    (address,) = re.findall(r'href="([^"]+)">Restore 2…', page)
    assert "Restore 2 discarded letters?" in client.get(address).content.decode()
    assert facilities.transport.stats("default").dead == 0
    client.post(address, {"count": "2"})
    finished(BulkAct.objects.get())

    assert facilities.transport.stats("default").dead == 2
    assert AuditEntry.objects.filter(act="letter.restore", count=2).exists()
    assert "No letter was discarded" in client.get(listed, {"state": "discarded"}).content.decode()
    operator.user_permissions.set(Permission.objects.filter(codename__in=["view_deadletter", "requeue_deadletter"]))
    assert client.get(address).status_code == client.post(address, {"count": "2"}).status_code == 403


def test_commands_restore_and_note(bury, capsys):
    made = discarded(bury)

    call_command("switchyard", "deadletters", "restore", made.id, "--reason", "it was none")
    call_command("switchyard", "deadletters", "note", made.id, "waits for the rates")

    out = capsys.readouterr().out
    assert "Restored 1 dead letter." in out and "Noted on fail_always" in out
    assert DeadLetter.objects.get().history[-1]["note"] == "waits for the rates"
    with pytest.raises(SystemExit):
        call_command("switchyard", "deadletters", "restore", made.id)
    with pytest.raises(CommandError, match="The note is empty"):
        call_command("switchyard", "deadletters", "note", made.id, " ")


@pytest.fixture
def row(bury):
    """A letter with a redacted argument and a secret inside another."""
    message = letter().message | {"args": [{"api_key": "k-1", "rows": [1, 2]}], "kwargs": {"address": "a@b.c"}}
    made = bury(message=message)
    projection.project(made)
    DeadLetter.objects.filter(message_id=made.id).update(fingerprint="f00d")
    return DeadLetter.objects.get()


def test_editing_needs_the_right_to_view_arguments(row, operator, client):
    operator.user_permissions.remove(Permission.objects.get(codename="view_arguments"))
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"

    answers = client.get(address), client.post(address, {"arguments": "{}"})

    assert [answer.status_code for answer in answers] == [403, 403]
    assert DeadLetter.objects.get().state == "new"
    assert address not in client.get(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/change/").content.decode()


def test_page_shows_no_secret_and_requeues_with_what_was_edited(row, client, facilities):
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"
    page = client.get(address).content.decode()
    text = html.unescape(re.search(r"<textarea[^>]*name=\"arguments\"[^>]*>(.*?)</textarea>", page, re.S)[1])
    assert json.loads(text) == {"number": {"api_key": "[redacted]", "rows": [1, 2]}, "address": "[redacted]"}

    client.post(address, {"arguments": text.replace("1,", "5,"), "reason": "wrong row"})

    message = facilities.transport.find_message("default", row.message_id)
    assert (message.args, message.kwargs) == (({"api_key": "k-1", "rows": [5, 2]},), {"address": "a@b.c"})
    row.refresh_from_db()
    assert (row.state, row.history[-1]["note"]) == ("requeued", "wrong row (changed: number)")
    entry = AuditEntry.objects.get(act="letter.edit")
    assert (entry.outcome, entry.count, entry.reason) == ("done", 1, "wrong row")
    assert entry.detail["changed"] == ["number"]


def edited(row: DeadLetter, **values: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the call that an edited text makes of a letter."""
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    actor, message = dramatiq.get_broker().actors[letter.actor], letter.message
    call = edited_call(actor, values, CallArguments(tuple(message["args"]), message["kwargs"]))
    return call.args, call.kwargs


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "no json"),
        ("[]", 'as an object, {"name"'),
        ('{"args": [], "kwargs": {}}', "unexpected keyword argument 'args'"),
        ('{"number": 1, "colour": 1}', "unexpected keyword argument 'colour'"),
        ('{"number": 1, "address": 2, "argument 3": 3}', "too many positional"),
        ('{"argument 3": 3}', "argument 3 has a place and no name: number is missing before it"),
        ('{"number": "[redacted]", "address": {"key": "[redacted]"}}', "argument number is hidden or cut"),
        ('{"number": NaN}', "nan"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_moves(text, fault, row, client, facilities):
    answer = client.post(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/", {"arguments": text})

    assert answer.status_code == 400
    assert fault in html.unescape(answer.content.decode()).lower()
    assert facilities.transport.stats("default").dead == 1


def test_arguments_beyond_the_size_of_a_message_are_refused(row):
    found = facilities().transport.find_dead_letter(row.queue, row.message_id)

    with pytest.raises(ArgumentsRefused, match="of at most"):
        requeue_edited(row, found, {"number": "x" * LIMIT_BYTES}, who=Who("a.lind", "page"))

    assert facilities().transport.stats("default").dead == 1


def test_what_is_hidden_or_cut_stays_as_it_was(row, bury):
    assert edited(row, number=3, address="[redacted]") == ((3,), {"address": "a@b.c"})
    made = bury(message=letter().message | {"kwargs": {"number": [{"token": "a", "text": "x" * 5_000}, 1]}})
    projection.project(made)
    cut = DeadLetter.objects.get(message_id=made.id)
    text = f"{'x' * 4_000}… (5000 characters)"

    same = edited(cut, number=[{"token": "[redacted]", "text": text}, 2])

    assert same == ((), {"number": [{"token": "a", "text": "x" * 5_000}, 2]})
    with pytest.raises(ArgumentsRefused, match=r"argument number\[0\].text is hidden or cut"):
        edited(cut, number=[{"token": "[redacted]", "text": f"y{text}"}, 2])
    with pytest.raises(ArgumentsRefused, match=r"argument number\[0\].token is hidden or cut"):
        edited(cut, number=[{"token": "[redacted]"}])
    assert edited(cut, number=[{"token": "c"}]) == ((), {"number": [{"token": "c"}]})


def test_arguments_by_place_go_back_to_their_places(bury):
    @dramatiq.actor(actor_name="placing")
    def placing(first: int, /, second: int, *more: int, last: int = 0) -> None: ...

    message = letter().message | {"actor_name": "placing", "args": [1, 2, 3, 4], "kwargs": {"last": 5}}
    projection.project(bury(actor="placing", message=message))
    row = DeadLetter.objects.get()
    shown = shown_arguments("placing", message["args"], message["kwargs"])

    assert shown == {"first": 1, "second": 2, "more": 3, "argument 4": 4, "last": 5}
    assert edited(row, **shown) == ((1, 2, 3, 4), {"last": 5})
    assert edited(row, **shown, **{"argument 5": 9})[0] == (1, 2, 3, 4, 9)
    assert edited(row, first=1, second=7) == ((1, 7), {})
    with pytest.raises(ArgumentsRefused, match="more has a place and no name: second is missing before it"):
        edited(row, first=1, more=2)
