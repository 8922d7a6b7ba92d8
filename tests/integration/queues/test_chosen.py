"""Pause and resume of several ticked queues."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from switchyard.audit.models import AuditEntry
from switchyard.broker.interface import Facilities

pytestmark = pytest.mark.django_db(transaction=True)
LIST = reverse("switchyard-queues")
PAUSE, RESUME = (reverse("switchyard-queues-chosen", args=[verb]) for verb in ("pause", "resume"))


def text_of(page: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.content.decode())).split())


def rows() -> list[tuple[str, str, str, int | None]]:
    return [(row.act, row.target, row.reason, row.count) for row in AuditEntry.objects.order_by("pk")]


def test_ticked_queues_are_paused_together_and_resumed_together(operator: Client, facilities: Facilities) -> None:
    listed = operator.get(LIST).content.decode()
    asked = operator.get(PAUSE, {"queue": ["urgent", "default", "no-such-queue"]})
    after_get = rows()
    done = operator.post(PAUSE, {"queue": ["urgent", "default"], "reason": "bank is away", "until": "2h"}, follow=True)
    before_resume = text_of(operator.get(RESUME, {"queue": ["urgent", "default", "slow"]}))
    resumed = operator.post(RESUME, {"queue": ["urgent", "default"]}, follow=True)

    assert 'name="queue" value="default"' in listed and f'formaction="{RESUME}"' in listed
    assert "Pause 2 queues?" in text_of(asked) and "no-such-queue" not in text_of(asked) and after_get == []
    assert "2 queues are paused: nothing starts, running jobs continue." in text_of(done)
    assert text_of(done).count("bank is away until") == 2
    assert "Resume 2 queues?" in before_resume and "slow : not paused" in before_resume
    assert "bank is away" in before_resume
    assert "2 queues are resumed." in text_of(resumed)
    assert "until" not in text_of(resumed).partition("Queues in the order")[2]
    assert rows() == [
        ("queue.pause", "urgent", "bank is away", 1),
        ("queue.pause", "default", "bank is away", 1),
        ("queue.resume", "urgent", "", 1),
        ("queue.resume", "default", "", 1),
    ]


@pytest.mark.parametrize(
    ("given", "why"),
    [({"reason": ""}, "Write a reason. Nothing was paused."), ({"reason": "x", "until": "yesterday"}, "write a span")],
)
def test_without_a_reason_or_with_a_wrong_end_nothing_is_paused(
    operator: Client, facilities: Facilities, given: dict[str, str], why: str
) -> None:
    page = operator.post(PAUSE, {"queue": ["urgent", "default"], **given})

    assert page.status_code == 422 and why in text_of(page)
    assert page.content.decode().count('type="hidden" name="queue"') == 2, "the queues stay chosen"
    assert rows() == []
