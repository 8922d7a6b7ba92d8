"""The list of dead letters: pages that miss and repeat none while letters arrive, and bounded counts."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from switchyard.dead_letters import views
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.queries import groups

pytestmark = pytest.mark.django_db

LIST = reverse("switchyard-letters")
NOW = timezone.now()


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switchyard.dead_letters.views.PER_PAGE", 3)


def row(minute: int, *, actor: str = "work", attempts: int = 1, state: str = "new", **columns: Any) -> DeadLetter:
    at = NOW - timedelta(minutes=100 - minute)
    known: dict[str, Any] = {
        "message_id": f"letter-{DeadLetter.objects.count()}", "queue": "default", "actor": actor, "reason": "exhausted",
        "exception": "KeyError", "error": "no", "traceback": "", "attempts": attempts, "payload": {"arguments": {}},
        "fingerprint": "beef", "enqueued_at": at, "died_at": at, "duration_ms": 1, "state": state, "state_at": at,
    }  # fmt: skip
    return DeadLetter.objects.create(**known | columns)


def walk(client: Client, query: dict[str, str], between: Callable[[], object] = lambda: None) -> list[list[DeadLetter]]:
    """Return the letters of each page; ``between`` runs after the first one."""
    page = client.get(LIST, query)
    pages = [list(page.context["listed"]["rows"])]
    between()
    while link := page.context["listed"]["after_link"]:
        page = client.get(LIST + link)
        pages.append(list(page.context["listed"]["rows"]))
    return pages


@pytest.mark.parametrize("offset", ["+14:00", "-14:00"])
def test_a_place_beyond_all_times_leads_to_the_first_page(client: Client, offset: str) -> None:
    row(1)
    at = f"{'0001-01-01T00:00:00' if offset[0] == '+' else '9999-12-31T23:59:59'}{offset}"

    answer = client.get(LIST, {"after": f"{at}~5"})

    assert (answer.status_code, answer.headers["Location"]) == (302, LIST)


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata"])
def test_bars_are_drawn_whatever_zone_the_database_has(zone: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = vars(connections["default"])
    monkeypatch.setitem(connection.settings_dict, "TIME_ZONE", zone)
    for name in ("timezone", "timezone_name"):
        kept.pop(name, None)
    for minute in (1, 97, 98):
        row(minute)

    (group,) = views.rows_of(groups())

    drawn = [bar for bar in group["bars"] if bar["kind"] == "trend"]
    assert group["words"] == "3 in the last 2 h" and len(drawn) in (2, 3)
    for name in ("timezone", "timezone_name"):
        kept.pop(name, None)


def test_the_next_page_goes_on_behind_the_last_letter(client: Client) -> None:
    rows = [row(minute) for minute in (1, 2, 3, 3, 3, 4, 5)]

    newest = walk(client, {"state": "open"}, between=lambda: row(60))

    assert [one for page in newest for one in page] == rows[::-1]
    assert [len(page) for page in newest] == [3, 3, 1]


def test_of_many_letters_the_page_says_that_there_are_more(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_COUNTED", 4)
    for minute in range(6):
        row(minute)

    assert "More than 4 letters match" in client.get(LIST, {"state": "open"}).content.decode()


@pytest.mark.sqlite
def test_lists_and_counts_of_a_state_use_its_index(client: Client) -> None:
    def plan(sql: str) -> str:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            return " ".join(str(step[3]) for step in cursor.fetchall())

    table, discarded = DeadLetter._meta.db_table, "WHERE state = 'discarded'"

    assert "dead_letter_states" in plan(f"SELECT COUNT(*) FROM (SELECT 1 FROM {table} {discarded} LIMIT 10001)")
    listed = plan(f"SELECT * FROM {table} {discarded} ORDER BY died_at DESC, id DESC LIMIT 51")
    assert "dead_letter_states" in listed and "TEMP B-TREE" not in listed
