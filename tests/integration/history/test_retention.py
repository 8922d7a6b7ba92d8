"""Jobs leave the history by age and by number, oldest first, a bounded number at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test import override_settings

from switchyard.history import writer
from switchyard.history.models import AttemptRow, JobRow, SearchValue
from switchyard.history.writer import Retention, most_rows
from tests.integration.history.rows import BASE_MS, job_row

pytestmark = pytest.mark.usefixtures("database")
DAY_MS = 86_400_000


@pytest.fixture
def bounds() -> Iterator[Any]:
    """Change the bounds of the history: ``bounds(history_days=7)``."""
    changes: list[Any] = []

    def change(**options: int) -> None:
        changes.append(override_settings(SWITCHYARD=dataclasses.replace(settings.SWITCHYARD, **options)))
        changes[-1].enable()

    yield change
    for each in reversed(changes):
        each.disable()


def with_attempt(at: int) -> JobRow:
    row = job_row(at, values={"customer_id": "42"})
    AttemptRow.objects.create(
        job_id=row.job_id, generation=0, attempt=1, state="retrying", lane="default", finished_at=row.finished_at
    )
    return row


def left() -> list[int]:
    """Return when the jobs that are left ended, and check that nothing else of the others is."""
    ids = set(JobRow.objects.values_list("job_id", flat=True))
    assert set(AttemptRow.objects.values_list("job_id", flat=True)) == ids
    assert set(SearchValue.objects.values_list("job_id", flat=True)) == ids
    return sorted(at - BASE_MS for at in JobRow.objects.values_list("finished_at", flat=True))


def test_jobs_leave_by_age_with_their_attempts_and_values(bounds: Any) -> None:
    bounds(history_days=7)
    for at in (-8 * DAY_MS, -7 * DAY_MS, -5 * DAY_MS, 0):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 2
    assert left() == [-5 * DAY_MS, 0]


def test_jobs_leave_by_number_oldest_first(bounds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "BATCH", 4)
    bounds(history_rows=5)
    for at in range(16):
        with_attempt(at)

    assert Retention().work(while_true=lambda: True) == 11
    assert left() == [11, 12, 13, 14, 15]


def test_a_round_is_bounded_and_ends_when_its_process_leads_no_more(
    bounds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BATCH", 2)
    monkeypatch.setattr(writer, "ROUND_BATCHES", 3)
    bounds(history_days=1)
    for at in range(10):
        with_attempt(at - 2 * DAY_MS)
    clock = [0.0]
    rounds = Retention(lambda: clock[0])

    assert rounds.work(while_true=lambda: False) == 0
    assert [rounds.work(while_true=lambda: True) for _ in range(3)] == [6, 4, 0]
    with_attempt(-2 * DAY_MS)
    assert rounds.work(while_true=lambda: True) == 0, "not before a minute has passed"
    clock[0] = 61.0
    assert rounds.work(while_true=lambda: True) == 1


def test_the_number_depends_on_the_database_unless_it_is_set(database: str, bounds: Any) -> None:
    assert most_rows() == (2_000_000 if connection.vendor == "sqlite" else 20_000_000)
    bounds(history_rows=7)
    assert most_rows() == 7
