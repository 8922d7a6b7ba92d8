"""Pages of the queues: what they show, who may act, and that nothing changes on GET."""

from __future__ import annotations

import re
import time

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities
from switchyard.broker.queue.operations import Entry
from switchyard.history.models import JobRow
from switchyard.operations import queries
from tests.factories.pages import text_of
from tests.waiting import wait_for

pytestmark = pytest.mark.django_db(transaction=True)
LIST, PAGE, LIVE = (
    reverse("switchyard-queues"),
    *(reverse(f"switchyard-queue{part}", args=["default"]) for part in ("", "-live")),
)
PAUSE, RESUME = (reverse(f"switchyard-queue-{act}", args=["default"]) for act in ("pause", "resume"))


@pytest.fixture
def waiting(facilities: Facilities) -> list[str]:
    """Ids of three messages that wait in ``default``."""

    @dramatiq.actor(actor_name="waits_here", queue_name="default")
    def waits_here() -> None:
        raise AssertionError("nothing runs here")

    return [waits_here.send().message_id for _ in range(3)]


def test_list_and_page_show_what_waits(watcher: Client, waiting: list[str]) -> None:
    listed, page = watcher.get(LIST), watcher.get(PAGE)

    assert f'href="{PAGE}"' in listed.content.decode()
    text = text_of(page)
    assert "3 waiting" in text and "start in 1 s" in text
    assert "data-away" not in listed.content.decode() + page.content.decode()
    assert "the first 3 that wait" in text and "waits_here" in text
    assert all(id_ in page.content.decode() for id_ in waiting)
    assert "Nobody: nothing runs in them." in text


def test_the_page_says_what_is_held_for_later_and_why(operator: Client, facilities: Facilities) -> None:
    @dramatiq.actor(actor_name="held_here", queue_name="default", rate_limit="10/m")
    def held_here() -> None:
        raise AssertionError("nothing runs here")

    held_here.send_with_options(delay=600_000)
    now = time.time_ns() // 1_000_000
    moved = {"deferred_by": "rate_limit", "due_at": now + 60_000, "enqueued_at": now}
    for _ in range(2):
        dramatiq.get_broker().enqueue(held_here.message().copy(options=moved), delay=60_000)
    page = operator.get(PAGE)

    text = text_of(page)
    assert "Scheduled they break no promise until they are due Scheduled messages by actor and reason" in text
    assert re.search(
        r"Scheduled : 2 of held_here \(rate limit, 10/m\), the first due in [\w ]+ s, and others\.", text
    ), text
    assert re.search(r"held_here rate limit, 10/m 2 in [\w. ]+ s held_here delay 1 in \d+ min", text), text


def test_waits_come_from_the_jobs_that_ended_lately(watcher: Client, facilities: Facilities) -> None:
    now = time.time_ns() // 1_000_000
    for number in range(100):
        JobRow.objects.create(
            job_id=f"j{number}", sequence=1, state="succeeded", actor="a", queue="default", lane="default", attempts=1,
            generation=0, finished_at=now - 1000, wait_ms=number, run_ms=1_000,
        )  # fmt: skip
    JobRow.objects.create(
        job_id="old", sequence=1, state="succeeded", actor="a", queue="default", lane="default", attempts=1,
        generation=0, finished_at=now - 3_600_000, wait_ms=99_000, run_ms=1_000,
    )  # fmt: skip

    text = text_of(watcher.get(PAGE))

    assert "100 jobs that ended in the last" in text and "from the history" in text
    assert "50 ms p50; to the end 1.1 s 95 ms p95" in text


def test_rates_are_measured_between_two_looks(watcher: Client, facilities: Facilities) -> None:
    page = reverse("switchyard-queue", args=["billing"])
    queries.forget()  # what other tests of this process have read
    assert "measured between two readings" in text_of(watcher.get(page))

    wait_for(lambda: "from the broker's counters" in text_of(watcher.get(page)))


def test_pausing_asks_for_a_reason_and_shows_it(operator: Client, waiting: list[str]) -> None:
    asked = operator.get(PAUSE)
    answer = operator.post(PAUSE, {"until": "2h", "reason": "bad <deploy>"}, follow=True)

    assert "Waiting 3; from " in text_of(asked)
    text = text_of(answer)
    assert "Paused by operator" in text and "Reason: bad <deploy>." in text and "Resumes by itself in " in text
    assert "<deploy>" not in answer.content.decode()
    assert "by operator: bad <deploy> until" in text_of(operator.get(LIST))
    assert f'href="{RESUME}"' in operator.get(LIST).content.decode()
    entry = AuditEntry.objects.get()
    assert (entry.act, entry.who, entry.via, entry.reason) == ("queue.pause", "operator", "page", "bad <deploy>")

    assert "3 waiting jobs start at once" in text_of(operator.get(RESUME))
    resumed = operator.post(RESUME, follow=True)
    assert "default is resumed." in text_of(resumed) and "Pause default…" in text_of(resumed)


def test_the_list_pauses_each_queue_leads_to_what_waits_and_is_fetched_again(
    operator: Client, watcher: Client, superuser: Client, waiting: list[str]
) -> None:
    page, part = operator.get(LIST).content.decode(), operator.get(LIST, {"part": "live"}).content.decode()

    assert f'data-live="{LIST}?part=live"' in page and "switchyard_operations/room.js" in page
    assert part.strip().startswith('<div class="sy-stack" data-verdict="')
    assert "<html" not in part and f'href="{PAUSE}"' in part
    assert "?state=queued&amp;queue=default" in superuser.get(LIST).content.decode()
    assert PAUSE not in watcher.get(LIST).content.decode()


def test_a_purge_asks_sets_aside_and_is_undone(operator: Client, watcher: Client, waiting: list[str]) -> None:
    url = reverse("switchyard-queue-purge", args=["default"])
    assert watcher.get(url).status_code == watcher.post(url).status_code == 403
    assert "3 jobs of default will never run." in text_of(operator.get(url))

    answer = operator.post(url, {"shown": "3", "reason": "sent twice"}, follow=True)

    text = text_of(answer)
    assert re.search(r"3 messages set aside (just now|[\d.]+ s ago) by operator\. Reason: sent twice\.", text)
    assert "0 waiting" in text
    assert "Put 3" not in text_of(watcher.get(PAGE))
    undo = re.search(r'action="([^"]+/undo/)"', answer.content.decode())
    assert undo is not None
    assert operator.get(undo[1]).status_code == 405 and watcher.post(undo[1]).status_code == 403
    undone = operator.post(undo[1], follow=True)
    assert "3 messages are put back" in text_of(undone) and "3 waiting" in text_of(undone)
    assert "cannot be put back" in text_of(operator.post(undo[1], follow=True))
    acts = [(entry.act, entry.count, entry.outcome) for entry in AuditEntry.objects.order_by("id")]
    assert acts == [("queue.purge", 3, "done"), ("queue.purge_undo", 3, "done"), ("queue.purge_undo", 0, "failed")]


@pytest.mark.parametrize("typed", ["", "100", "1010"])
def test_a_purge_over_a_hundred_has_its_count_typed(operator: Client, facilities: Facilities, typed: str) -> None:
    family = dramatiq.get_broker().lane("default")[0]  # type: ignore[attr-defined]
    family.enqueue([Entry(f"m{number}", b"{}") for number in range(101)])
    url = reverse("switchyard-queue-purge", args=["default"])

    refused = operator.post(url, {"shown": "101", "reason": "why", "typed": typed})
    no_reason = operator.post(url, {"shown": "101", "reason": " ", "typed": "101"})

    assert (refused.status_code, no_reason.status_code) == (422, 422)
    assert "101 waiting" in text_of(operator.get(PAGE))
    assert "101 messages set aside" in text_of(
        operator.post(url, {"shown": "101", "reason": "r", "typed": "101"}, follow=True)
    )


def test_an_actors_waiting_messages_move_to_another_queue(
    operator: Client, watcher: Client, waiting: list[str]
) -> None:
    url = reverse("switchyard-queue-relocate", args=["default"])
    asked = operator.get(url)
    refused = operator.post(url, {"actor": "waits_here", "to": "nowhere", "reason": "why"})
    same = operator.post(url, {"actor": "waits_here", "to": "default", "reason": "why"})
    no_reason = operator.post(url, {"actor": "waits_here", "to": "slow", "reason": ""})

    moved = operator.post(url, {"actor": "waits_here", "to": "slow", "reason": "too slow"}, follow=True)

    assert watcher.get(url).status_code == watcher.post(url).status_code == 403
    assert "waits_here: 3" in text_of(asked)
    assert [answer.status_code for answer in (refused, same, no_reason)] == [422, 422, 422]
    assert "3 messages of waits_here wait in slow now." in text_of(moved) and "0 waiting" in text_of(moved)
    entry = AuditEntry.objects.get(act="queue.relocate", outcome="done")
    assert (entry.target, entry.count, entry.detail, entry.reason) == (
        "default", 3, {"actor": "waits_here", "to": "slow"}, "too slow",
    )  # fmt: skip
