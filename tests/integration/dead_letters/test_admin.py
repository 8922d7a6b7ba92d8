from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.audit.services import Who
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.broker.redis_broker import RedisBroker
from switchyard.broker.shapes import DeadLetter as Letter
from switchyard.bulk import runner, services
from switchyard.bulk.kinds import kind_of
from switchyard.bulk.models import BulkAct
from switchyard.dead_letters import acts, projection
from switchyard.dead_letters.models import DeadLetter
from tests.factories.staff import staff
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db

LIST = "switchyard-letters"
EVIL = "<script>alert(1)</script>"


@pytest.fixture
def reader(db: None) -> Client:
    """May look, nothing else."""
    return staff("view_deadletter", name="reader")


def page_of(row: DeadLetter) -> str:
    return reverse("switchyard-letter", args=[row.pk])


def one(row: DeadLetter, act: str) -> str:
    return reverse("switchyard-letter-act", args=[row.pk, act])


def mirrored(made: Letter) -> DeadLetter:
    projection.project_or_log(made)
    return DeadLetter.objects.get(message_id=made.id)


def test_list_counts_bugs_and_shows_open_letters_only(bury: Callable[..., Letter], client: Client) -> None:
    mirrored(bury(error="the open one"))
    mirrored(bury(error="the other one", fingerprint="beef"))
    acts.act_on(mirrored(bury(error="the discarded one")), "discard", by="a.lind")

    page = client.get(reverse(LIST)).content.decode()

    assert "2 open dead letters are 2 bugs" in page
    assert "the open one" in page and "the discarded one" not in page
    assert "the discarded one" in client.get(reverse(LIST), {"state": "all"}).content.decode()


@pytest.mark.parametrize(
    "query", ["?q=vat_rate", "?queue=default&reason=exhausted", "?died_at__gte=2026-01-01T00:00:00Z", "?o=-6"]
)
def test_list_can_be_searched_filtered_and_sorted(bury: Callable[..., Letter], client: Client, query: str) -> None:
    mirrored(bury())

    answer = client.get(reverse(LIST) + query)

    assert answer.status_code == 200
    assert "KeyError: &#x27;vat_rate&#x27;" in answer.content.decode()


def test_detail_shows_traceback_payload_and_history_escaped(bury: Callable[..., Letter], client: Client) -> None:
    made = bury(
        exception=EVIL,
        error=EVIL,
        traceback=EVIL,
        message={**bury().message, "kwargs": {"number": EVIL, "address": "ada"}},
    )
    row = mirrored(made)
    acts.act_on(row, "acknowledge", by="a.lind", reason=EVIL)

    page = client.get(page_of(row)).content.decode()

    assert EVIL not in page
    assert page.count("&lt;script&gt;") >= 5
    assert "[redacted]" in page and ">ada<" not in page


def test_detail_offers_what_the_user_may_do(bury: Callable[..., Letter], client: Client, reader: Client) -> None:
    row = mirrored(bury())

    full, poor = (who.get(page_of(row)).content.decode() for who in (client, reader))

    assert all(word in full for word in ("Requeue letter", "Discard letter…", "Acknowledge"))
    assert not any(word in poor for word in ("Requeue letter", "Discard letter…", "Acknowledge"))


def test_arguments_are_shown_to_who_may_view_them(bury: Callable[..., Letter], client: Client, reader: Client) -> None:
    made = bury(message={**bury().message, "kwargs": {"number": "argument-7731"}})
    row = mirrored(made)

    full, poor = (who.get(page_of(row)).content.decode() for who in (client, reader))

    assert "argument-7731" in full and "argument-7731" not in poor
    assert "switchyard_jobs.view_arguments" in poor


@pytest.mark.django_db(transaction=True)
def test_bytes_in_the_quarantine_are_shown_to_who_may_view_arguments_but_redacted_ones(
    facilities: Facilities, run_worker: Callable[..., Any], client: Client, reader: Client
) -> None:
    body = b'{"actor":"send_welcome_mail","sent_at":1,"args":["ada@yard.example"],"options":{"newer":7}}'
    cast(RedisBroker, dramatiq.get_broker()).families["default"].enqueue([Entry("newer", body)])
    with run_worker("default"):
        wait_for(lambda: facilities.transport.stats("default").quarantined)

    address = reverse("switchyard-quarantine")
    full, poor = (who.get(address).content.decode() for who in (client, reader))

    assert "000000  7b 22 61 63 74 6f 72" in full and "7b 22 61 63" not in poor
    assert "61 64 61 40" not in full  # the actor redacts the address
    assert "switchyard_jobs.view_arguments" in poor and "newer" in poor


def test_requeue_button_requeues(bury: Callable[..., Letter], client: Client, facilities: Facilities) -> None:
    row = mirrored(bury())

    answer = client.post(one(row, "requeue"), follow=True)

    assert "Requeued 1 dead letter." in answer.content.decode()
    assert facilities.transport.stats("default").live.waiting == 1
    assert "<strong>Requeue" in client.get(page_of(row)).content.decode()


def test_discard_asks_first_and_wants_a_reason(
    bury: Callable[..., Letter], client: Client, facilities: Facilities
) -> None:
    row = mirrored(bury())

    asked = client.get(one(row, "discard")).content.decode()
    unexplained = client.post(one(row, "discard"))
    assert "It will never run." in asked
    assert "enter a reason" in unexplained.content.decode()
    assert facilities.transport.stats("default").dead == 1

    client.post(one(row, "discard"), {"reason": "duplicate"})

    row.refresh_from_db()
    assert (row.state, row.history[-1]["note"]) == ("discarded", "duplicate")


def test_ticked_letters_are_named_before_a_bulk_act_on_them_and_no_others(
    bury: Callable[..., Letter], client: Client, facilities: Facilities
) -> None:
    rows = [mirrored(bury()) for _ in range(3)]
    address = reverse("switchyard-bulk-begin", args=["letter.requeue"])
    listed = client.get(reverse(LIST), {"queue": "default"}).content.decode()
    assert f'formaction="{address}"' in listed and f'name="letter" value="{rows[0].pk}"' in listed
    assert "none was chosen" in client.get(address, {"letter": ""}).content.decode()
    for wrong in ("1,x", ",".join(map(str, range(1, 1_002)))):
        assert "the keys of at most 1,000 letters" in client.get(address, {"letter": wrong}).content.decode()

    chosen = f"{address}?letter=&letter={rows[0].pk}&letter={rows[1].pk}"
    assert "Requeue 2 dead letters?" in client.get(chosen).content.decode()
    assert facilities.transport.stats("default").dead == 3
    client.post(chosen, {"count": "2"})
    act = BulkAct.objects.get()
    while runner.take_step(act.pk, act.run) is not None:
        pass

    act.refresh_from_db()
    assert (act.state, act.done, facilities.transport.stats("default").dead) == ("done", 2, 1)
    rows[2].refresh_from_db()
    assert rows[2].state == "new"


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_group_is_acknowledged_by_a_bulk_act_and_what_was_known_stays_so(
    bury: Callable[..., Letter], interrupted: bool
) -> None:
    rows = [mirrored(bury()) for _ in range(3)]
    acts.act_on(rows[0], "acknowledge", by="a.lind")
    act = services.start("letter.acknowledge", {"fingerprint": rows[0].fingerprint}, who=Who("m.keller", "page"))
    if interrupted:
        begun = runner.begin(act.pk, act.run)
        assert begun is not None
        kind_of(act.kind).apply(begun[0], begun[0].hand[:1], repeated=False)

    while runner.take_step(act.pk, act.run) is not None:
        pass

    act.refresh_from_db()
    assert (act.state, act.total, act.done, act.skips) == ("done", 2, 2, {})
    assert [(row.state, row.state_by) for row in DeadLetter.objects.order_by("pk")] == [
        ("acknowledged", "a.lind"), ("acknowledged", "m.keller"), ("acknowledged", "m.keller"),
    ]  # fmt: skip


def test_groups_name_error_frame_trend_and_lead_to_their_letters(bury: Callable[..., Letter], client: Client) -> None:
    row = mirrored(bury(error="no <b>rate</b>"))

    page = client.get(reverse(LIST)).content.decode()

    assert "no &lt;b&gt;rate" in page and "1 in the last 2 h" in page
    assert f'href="?fingerprint={row.fingerprint}">Triage 1…' in page
    assert "result_list" not in page, "letters are listed where a filter asks for them"
