"""A letter's arguments are edited before its requeue: validated, and audited without secrets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from switchyard.audit.models import AuditEntry
from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.json_body import LIMIT_BYTES
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters import editing, projection
from switchyard.dead_letters.models import DeadLetter
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


def test_editing_needs_the_right_to_view_arguments(row: DeadLetter, operator: User, client: Client) -> None:
    operator.user_permissions.remove(Permission.objects.get(codename="view_arguments"))
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"

    answers = client.get(address), client.post(address, {"arguments": "{}"})

    assert [answer.status_code for answer in answers] == [403, 403]
    assert DeadLetter.objects.get().state == "new"
    assert address not in client.get(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/change/").content.decode()


def test_page_shows_no_secret_and_requeues_with_what_was_edited(
    row: DeadLetter, client: Client, facilities: Facilities
) -> None:
    address = f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/"
    shown = re.search(
        r"<textarea[^>]*name=\"arguments\"[^>]*>(.*?)</textarea>", client.get(address).content.decode(), re.S
    )
    assert shown is not None
    text = html.unescape(shown[1])
    assert json.loads(text) == {"number": {"api_key": "[redacted]", "rows": [1, 2]}, "address": "[redacted]"}

    client.post(address, {"arguments": text.replace("1,", "5,"), "reason": "wrong row"})

    message = facilities.transport.find_message("default", row.message_id)
    assert message is not None
    assert (message.args, message.kwargs) == (({"api_key": "k-1", "rows": [5, 2]},), {"address": "a@b.c"})
    row.refresh_from_db()
    assert row.state == "requeued"
    assert row.history[-1]["note"] == "wrong row (changed: number)"
    entry = AuditEntry.objects.get(act="letter.edit")
    assert (entry.outcome, entry.count, entry.reason) == ("done", 1, "wrong row")
    change = entry.detail["changed"]["number"]
    assert json.loads(change["to"]) == {"api_key": "[redacted]", "rows": [5, 2]}
    assert "k-1" not in json.dumps(entry.detail)


def test_changed_secret_is_named_without_its_values(row: DeadLetter) -> None:
    edited = editing.parse(row, json.dumps({"number": 3, "address": "new@b.c"}))

    assert edited.arguments == ([3], {"address": "new@b.c"})
    assert edited.changes["address"] == {"from": '"[redacted]"', "to": '"[redacted]"'}
    assert "b.c" not in json.dumps(edited.changes)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[]", 'write them by name: {"name"'),
        ('{"args": [], "kwargs": {}}', "unexpected keyword argument 'args'"),
        ('{"number": 1, "colour": 1}', "unexpected keyword argument 'colour'"),
        ('{"number": 1, "address": 2, "argument 3": 3}', "too many positional"),
        ('{"argument 3": 3}', "argument 3 has a place and no name: number is missing before it"),
        ('{"number": "[redacted]", "address": {"key": "[redacted]"}}', "there was none"),
        ('{"number": NaN}', "nan"),
        (json.dumps({"number": "x" * LIMIT_BYTES}), "bytes of a message"),
        (json.dumps({"number": "x" * (LIMIT_BYTES - 20)}), "of at most"),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_moves(
    text: str, fault: str, row: DeadLetter, client: Client, facilities: Facilities
) -> None:
    with pytest.raises(ArgumentsRefused, match=f"(?i){re.escape(fault)}"):
        editing.parse(row, text)

    answer = client.post(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/", {"arguments": text[:2_000]})

    assert answer.status_code == 400
    assert facilities.transport.stats("default").dead == 1


def test_hidden_values_stay_when_another_argument_is_edited(row: DeadLetter) -> None:
    edited = editing.parse(row, json.dumps({"number": 3, "address": "[redacted]"}))

    assert edited.arguments == ([3], {"address": "a@b.c"})
    assert edited.changes.keys() == {"number"}


def test_a_shortened_list_does_not_move_hidden_values(bury: Bury) -> None:
    made = bury(message=letter().message | {"kwargs": {"number": [{"token": "a"}, {"token": "b"}]}})
    projection.project(made)
    row = DeadLetter.objects.get()

    with pytest.raises(ArgumentsRefused, match="number: of 2 values some were left out, and which"):
        editing.parse(row, '{"number": [{"token": "[redacted]"}]}')
    assert editing.parse(row, '{"number": [{"token": "c"}]}').arguments == ([], {"number": [{"token": "c"}]})


def test_arguments_by_place_go_back_to_their_places(bury: Bury) -> None:
    @dramatiq.actor(actor_name="placing")
    def placing(first: int, /, second: int, *more: int, last: int = 0) -> None: ...

    try:
        message = letter().message | {"actor_name": "placing", "args": [1, 2, 3, 4], "kwargs": {"last": 5}}
        made = bury(actor="placing", message=message)
        projection.project(made)
        row = DeadLetter.objects.get()
        text = editing.editable(row)

        assert json.loads(text) == {"first": 1, "second": 2, "more": 3, "argument 4": 4, "last": 5}
        assert editing.parse(row, text).arguments == ([1, 2, 3, 4], {"last": 5})
        assert editing.parse(row, text.replace('4": 4', '4": 4, "argument 5": 9')).arguments[0] == [1, 2, 3, 4, 9]
        assert editing.parse(row, '{"first": 1, "second": 7}').arguments == ([1, 7], {})
        with pytest.raises(ArgumentsRefused, match="more has a place and no name: second is missing before it"):
            editing.parse(row, '{"first": 1, "more": 2}')
    finally:
        del dramatiq.get_broker().actors["placing"]
