"""Acts that need the broker, while it is away: switched off with the reason in words, and a POST answers 503."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dramatiq
import pytest
from django.test import Client
from django.urls import reverse
from periodiq import cron

from switchyard.broker.interface import Facilities
from switchyard.console.room_view import SWITCHED_OFF
from switchyard.dead_letters.models import DeadLetter
from switchyard.frame.views import STRIP
from switchyard.operations import overview
from tests.factories.brokers import broker_without_server
from tests.integration.jobs.history_rows import job_row

pytestmark = pytest.mark.django_db(transaction=True)
# A button, a choice or a link that is marked as one that needs the broker, up to the end of its tag.
MARKED = re.compile(r"<(?:a|button|option)\b[^>]*\bdata-broker\b[^>]*>")
OFF = html.escape(SWITCHED_OFF)


@pytest.fixture
def sweep(facilities: Facilities) -> str:
    """A schedule of this project's own broker."""
    dramatiq.actor(lambda: None, actor_name="sweep", queue_name="billing", periodic=cron("15 2 * * *"))
    return "sweep"


@pytest.fixture
def letter(sweep: str) -> DeadLetter:
    at = datetime.now(UTC)
    return DeadLetter.objects.create(
        message_id="m-1", queue="default", actor="sweep", reason="exhausted", exception="KeyError", error="",
        traceback="", attempts=1, payload={}, fingerprint="f00d", enqueued_at=at, died_at=at, state_at=at,
        duration_ms=1,
    )  # fmt: skip


@pytest.fixture
def away(facilities: Facilities) -> Iterator[None]:
    """The broker does not answer, and this process has not read it before."""
    overview.FACTS.forget()
    STRIP.forget()
    with broker_without_server():
        for actor in dramatiq.get_broker().actors.values():
            if actor.actor_name == "sweep":  # it sends to the broker that declared it
                actor.broker = dramatiq.get_broker()
        yield
    overview.FACTS.forget()
    STRIP.forget()


def marked(page: str) -> list[str]:
    return MARKED.findall(page)


def is_off(tag: str) -> bool:
    """Return whether a tag does nothing and says why."""
    is_dead = " disabled" in tag if not tag.startswith("<a") else 'aria-disabled="true"' in tag and "href" not in tag
    return is_dead and f'title="{OFF}"' in tag


def pages(letter: DeadLetter) -> dict[str, tuple[str, int]]:
    """Return the pages with acts on the broker, each with the number of these acts at least."""
    row = {"args": [letter.pk]}
    return {
        "queues": (reverse("switchyard-queues"), 4),
        "a queue": (reverse("switchyard-queue", args=["default"]), 3),
        "a queue, alone": (reverse("switchyard-queue-live", args=["default"]), 3),
        "pause": (reverse("switchyard-queue-pause", args=["default"]), 1),
        "resume": (reverse("switchyard-queue-resume", args=["default"]), 1),
        "purge": (reverse("switchyard-queue-purge", args=["default"]), 1),
        "relocate": (reverse("switchyard-queue-relocate", args=["default"]), 1),
        "workers": (reverse("switchyard-operations-workers"), 3),
        "schedules": (reverse("switchyard-schedules"), 1),
        "a schedule": (reverse("switchyard-schedule", args=["sweep"]), 1),
        "an actor": (reverse("switchyard-actor", args=["sweep"]), 1),
        "letters": (f"{reverse('switchyard-letters')}?queue=default", 2),
        "a group": (f"{reverse('switchyard-letters')}?fingerprint=f00d", 4),
        "a letter": (reverse("switchyard-letter", **row), 3),
        "discard": (reverse("switchyard-letter-act", args=[letter.pk, "discard"]), 1),
        "jobs": ("/admin/switchyard_jobs/job/?state=succeeded", 2),
    }


def test_acts_are_switched_off_with_the_reason_on_every_page(
    admin_client: Client, letter: DeadLetter, away: None
) -> None:
    job_row()

    for name, (address, least) in pages(letter).items():
        page = admin_client.get(address).content.decode()
        found = marked(page)
        assert len(found) >= least, (name, found)
        assert [tag for tag in found if not is_off(tag)] == [], name
        assert re.search(rf">{re.escape(OFF)}</", page), f"{name} does not show the reason"


def test_what_needs_no_broker_stays(admin_client: Client, letter: DeadLetter, away: None) -> None:
    schedule = admin_client.get(reverse("switchyard-schedule", args=["sweep"])).content.decode()
    shown = admin_client.get(reverse("switchyard-letter", args=[letter.pk])).content.decode()

    assert re.search(r'<button class="sy-button">Pause sweep</button>', schedule)
    assert re.search(r'<button class="sy-button">Acknowledge letter</button>', shown)


def test_nothing_is_switched_off_while_the_broker_answers(
    admin_client: Client, letter: DeadLetter, facilities: Facilities
) -> None:
    STRIP.forget()
    job_row()

    for name, (address, _) in pages(letter).items():
        page = admin_client.get(address).content.decode()
        assert OFF not in page and not any(map(is_off, marked(page))), name


def posts(letter: DeadLetter) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the acts on the broker with the fields of their forms."""
    reason = {"reason": "why"}
    return {
        "pause": (reverse("switchyard-queue-pause", args=["default"]), reason),
        "resume": (reverse("switchyard-queue-resume", args=["default"]), reason),
        "purge": (reverse("switchyard-queue-purge", args=["default"]), {"shown": "3", **reason}),
        "undo": (reverse("switchyard-queue-undo", args=["default", "1"]), {}),
        "relocate": (
            reverse("switchyard-queue-relocate", args=["default"]), {"actor": "sweep", "to": "slow", **reason},
        ),
        "quiet a pool": (reverse("switchyard-operations-instruct", args=["quiet"]), {"pool": "slow", **reason}),
        "stacks": (reverse("switchyard-operations-ask-for-stacks", args=["slow:h:1"]), {}),
        "run a schedule": (reverse("switchyard-schedule-run", args=["sweep"]), {}),
        "send": (
            reverse("switchyard-actor-send", args=["sweep"]), {"job_id": "0d0f8a3a-5f0e-4d43-9c5a-1f6a1d1b0f7c"},
        ),
        "requeue": (reverse("switchyard-letter-act", args=[letter.pk, "requeue"]), {}),
        "discard": (reverse("switchyard-letter-act", args=[letter.pk, "discard"]), reason),
        "edit": (reverse("switchyard-letter-edit", args=[letter.pk]), {"arguments": "{}"}),
        "cancel": ("/admin/switchyard_jobs/job/m-1/cancel/", reason),
        "run now": ("/admin/switchyard_jobs/job/m-1/run-now/", {}),
        "cancel chosen": ("/admin/operations/bulk/begin/job.cancel_chosen/?job=m-1", {"count": "1", **reason}),
    }  # fmt: skip


def test_a_post_answers_503_in_words(admin_client: Client, letter: DeadLetter, away: None) -> None:
    for name, (address, fields) in posts(letter).items():
        answer = admin_client.post(address, fields)
        page = answer.content.decode()
        assert answer.status_code == 503, (name, answer.status_code, answer.headers.get("Location"))
        assert re.search(r"broker (did|does) not answer|while the broker is unavailable", page, re.IGNORECASE), name
        assert 'id="content-start"' in page and "Traceback (most" not in page, name
    letter.refresh_from_db()
    assert letter.state == "new"
