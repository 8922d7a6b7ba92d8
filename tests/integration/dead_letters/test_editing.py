"""A letter's arguments are edited before its requeue: validated, and audited without secrets."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from typing import Any

import dramatiq
import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from switchyard.audit.models import AuditEntry
from switchyard.audit.services import Who
from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.interface import Facilities, facilities
from switchyard.broker.queue.json_body import LIMIT_BYTES
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.dead_letters import projection
from switchyard.dead_letters.models import DeadLetter
from switchyard.jobs.calls import CallArguments
from switchyard.jobs.passport.again import edited_call, requeue_edited
from switchyard.payload import shown_arguments
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
    assert entry.detail["changed"] == ["number"]


def edited(row: DeadLetter, **values: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the call that an edited text makes of a letter."""
    letter = facilities().transport.find_dead_letter(row.queue, row.message_id)
    assert letter is not None
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
def test_wrong_arguments_are_refused_and_nothing_moves(
    text: str, fault: str, row: DeadLetter, client: Client, facilities: Facilities
) -> None:
    answer = client.post(f"/admin/switchyard_dead_letters/deadletter/{row.pk}/edit/", {"arguments": text})

    assert answer.status_code == 400
    assert fault in html.unescape(answer.content.decode()).lower()
    assert facilities.transport.stats("default").dead == 1


def test_arguments_beyond_the_size_of_a_message_are_refused(row: DeadLetter) -> None:
    found = facilities().transport.find_dead_letter(row.queue, row.message_id)
    assert found is not None

    with pytest.raises(ArgumentsRefused, match="of at most"):
        requeue_edited(row, found, {"number": "x" * LIMIT_BYTES}, who=Who("a.lind", "page"))

    assert facilities().transport.stats("default").dead == 1


def test_what_is_hidden_or_cut_stays_as_it_was(row: DeadLetter, bury: Bury) -> None:
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


def test_arguments_by_place_go_back_to_their_places(bury: Bury) -> None:
    @dramatiq.actor(actor_name="placing")
    def placing(first: int, /, second: int, *more: int, last: int = 0) -> None: ...

    try:
        message = letter().message | {"actor_name": "placing", "args": [1, 2, 3, 4], "kwargs": {"last": 5}}
        made = bury(actor="placing", message=message)
        projection.project(made)
        row = DeadLetter.objects.get()
        shown = shown_arguments("placing", message["args"], message["kwargs"])

        assert shown == {"first": 1, "second": 2, "more": 3, "argument 4": 4, "last": 5}
        assert edited(row, **shown) == ((1, 2, 3, 4), {"last": 5})
        assert edited(row, **shown, **{"argument 5": 9})[0] == (1, 2, 3, 4, 9)
        assert edited(row, first=1, second=7) == ((1, 7), {})
        with pytest.raises(ArgumentsRefused, match="more has a place and no name: second is missing before it"):
            edited(row, first=1, more=2)
    finally:
        del dramatiq.get_broker().actors["placing"]
