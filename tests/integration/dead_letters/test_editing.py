"""A letter's arguments are edited before its requeue: validated, and audited without secrets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from apps.platform.audit.models import AuditEntry
from apps.platform.dead_letters import editing, projection
from apps.platform.dead_letters.errors import ArgumentsRefused
from apps.platform.dead_letters.models import DeadLetter
from broker.interface import Facilities
from broker.queue.json_body import LIMIT_BYTES
from broker.shapes import DeadLetter as Letter
from tests.factories.letters import letter

pytestmark = pytest.mark.django_db
Bury = Callable[..., Letter]


@pytest.fixture
def row(bury: Bury) -> DeadLetter:
    """A letter with a redacted argument and a secret inside another."""
    message = letter().message | {"args": [{"api_key": "k-1", "rows": [1, 2]}], "kwargs": {"address": "a@b.c"}}
    made = bury(message=message)
    projection.project(made)
    DeadLetter.objects.filter(message_id=made.id).update(fingerprint="f00d")
    return DeadLetter.objects.get()


@pytest.fixture
def page(operator: User) -> Client:
    """A browser of the operator."""
    client = Client()
    client.force_login(operator)
    return client


def test_editing_needs_the_right_to_view_arguments(row: DeadLetter, operator: User, page: Client) -> None:
    operator.user_permissions.remove(Permission.objects.get(codename="view_arguments"))
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"

    answers = page.get(address), page.post(address, {"arguments": '{"args": [], "kwargs": {}}'})

    assert [answer.status_code for answer in answers] == [403, 403]
    assert DeadLetter.objects.get().state == "new"
    assert address not in page.get(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/change/").content.decode()


def test_page_shows_no_secret_and_requeues_with_what_was_edited(
    row: DeadLetter, page: Client, facilities: Facilities
) -> None:
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"
    shown = re.search(
        r"<textarea[^>]*name=\"arguments\"[^>]*>(.*?)</textarea>", page.get(address).content.decode(), re.S
    )
    assert shown is not None
    text = html.unescape(shown[1])
    assert json.loads(text) == {
        "args": [{"api_key": "[redacted]", "rows": [1, 2]}], "kwargs": {"address": "[redacted]"},
    }  # fmt: skip

    page.post(address, {"arguments": text.replace("1,", "5,"), "reason": "wrong row"})

    message = facilities.transport.find_message("default", row.message_id)
    assert message is not None
    assert (message.args, message.kwargs) == (({"api_key": "k-1", "rows": [5, 2]},), {"address": "a@b.c"})
    row.refresh_from_db()
    assert row.state == "replayed"
    assert row.history[-1]["note"] == "wrong row (changed: number)"
    entry = AuditEntry.objects.get(act="letter.edit")
    assert (entry.outcome, entry.count, entry.reason) == ("done", 1, "wrong row")
    change = entry.detail["changed"]["number"]
    assert json.loads(change["to"]) == {"api_key": "[redacted]", "rows": [5, 2]}
    assert "k-1" not in json.dumps(entry.detail)


def test_changed_secret_is_named_without_its_values(row: DeadLetter) -> None:
    edited = editing.parse(row, json.dumps({"args": [], "kwargs": {"number": 3, "address": "new@b.c"}}))

    assert edited.arguments == ([], {"number": 3, "address": "new@b.c"})
    assert edited.changes["address"] == {"from": '"[redacted]"', "to": '"[redacted]"'}
    assert "b.c" not in json.dumps(edited.changes)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "no JSON"),
        ("[]", 'write {"args"'),
        ('{"args": [], "kwargs": {}, "options": {}}', 'write {"args"'),
        ('{"args": [], "kwargs": {"colour": 1}}', "unexpected keyword argument 'colour'"),
        ('{"args": [1, 2, 3], "kwargs": {}}', "too many positional"),
        ('{"args": ["[redacted]", "[redacted]"], "kwargs": {}}', "there was none"),
        ('{"args": [NaN], "kwargs": {}}', "nan"),
        (json.dumps({"args": ["x" * LIMIT_BYTES], "kwargs": {}}), "bytes of a message"),
        (json.dumps({"args": ["x" * (LIMIT_BYTES - 40)], "kwargs": {}}), "of at most"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_moves(
    text: str, fault: str, row: DeadLetter, page: Client, facilities: Facilities
) -> None:
    with pytest.raises(ArgumentsRefused, match=f"(?i){re.escape(fault)}"):
        editing.parse(row, text)

    answer = page.post(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/", {"arguments": text[:2_000]})

    assert answer.status_code == 400
    assert facilities.transport.stats("default").dead == 1


def test_letter_that_is_gone_cannot_be_edited(row: DeadLetter, page: Client, facilities: Facilities) -> None:
    facilities.transport.discard("default", row.message_id)

    answer = page.get(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/", follow=True)

    assert "no longer holds it" in answer.content.decode()
