from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchyard.dead_letters.act_views import of_rows
from switchyard.dead_letters.models import DeadLetter

DIED = datetime(2026, 11, 20, 2, 54, tzinfo=UTC)


def rows(count: int) -> list[DeadLetter]:
    return [
        DeadLetter(pk=index, queue="slow", actor="report", exception="KeyError", died_at=DIED) for index in range(count)
    ]


@pytest.mark.parametrize(
    ("act", "count", "title", "headline"),
    [
        ("discard", 1, "Discard 1 dead letter?", "It will never run."),
        ("discard", 147, "Discard 147 dead letters?", "They will never run."),
        ("requeue", 1, "Requeue 1 dead letter?", "It runs again,"),
        ("requeue", 2, "Requeue 2 dead letters?", "They run again,"),
    ],
)
def test_question_says_how_many_and_what_happens(act: str, count: int, title: str, headline: str) -> None:
    question = of_rows(act, rows(count), back="/")

    assert (question["title"], question["headline"]) == (title, headline)


def test_count_is_typed_above_a_hundred_only() -> None:
    assert not of_rows("requeue", rows(100), back="/")["typed"]
    assert of_rows("requeue", rows(101), back="/")["typed"]


def test_only_discarding_is_destructive() -> None:
    assert [of_rows(act, rows(1), back="/")["destructive"] for act in ("acknowledge", "requeue", "discard")] == [
        False,
        False,
        True,
    ]


def test_owners_are_named_with_the_jobs_of_theirs_that_are_hit() -> None:
    hit = rows(7)
    for row, owner in zip(hit, ("nordwind", "nordwind", "acme", "globex", "initech", ""), strict=False):
        row.payload = {"options": {"owner": owner}}
    hit[6].payload = "unreadable"

    facts = of_rows("discard", hit, back="/")["facts"]

    assert facts["Owners"] == "nordwind (2), acme (1), globex (1) and 1 more"
    assert "Owners" not in of_rows("discard", hit[5:], back="/")["facts"]
