"""Ended jobs in other orders: by run time, by wait, oldest first, in pages that miss and repeat none."""

from __future__ import annotations

import random

import pytest

from switchyard.history import queries
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow
from switchyard.history.queries import search_sorted
from tests.integration.history.rows import BASE_MS, job_row

pytestmark = pytest.mark.usefixtures("database")


def walked(wanted: Filter, sort: str, limit: int = 3) -> list[JobRow]:
    after, rows = "", []
    while True:
        page = search_sorted(wanted, sort, after=after, limit=limit)
        rows += page.rows
        if not (after := page.after):
            return rows


def rows_of_several_kinds() -> None:
    chance = random.Random(7)
    for number in range(40):
        job_row(
            chance.randrange(20),
            state=chance.choice(["succeeded", "dead"]),
            actor=chance.choice(["work", "send"]),
            run_ms=None if number % 9 == 0 else chance.randrange(6),
            wait_ms=chance.randrange(6),
            values={"customer_id": chance.choice("12")},
        )


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(),
        Filter(actor="send"),
        Filter(states=("dead",)),
        Filter(actor="work", states=("succeeded",)),
        Filter(failures=True),
        Filter(argument=("customer_id", "2")),
        Filter(argument=("customer_id", "1"), actor="work"),
    ],
    ids=str,
)
def test_each_order_lists_what_matches_once(wanted: Filter) -> None:
    rows_of_several_kinds()
    place = "failed_at" if wanted.failures else "finished_at"

    listed = {sort: walked(wanted, sort) for sort in queries.SORTS}

    for sort, rows in listed.items():
        column = queries.COLUMNS[sort.lstrip("-")] or place
        pairs = [(getattr(row, column), row.pk) for row in rows]
        assert pairs == sorted(pairs, reverse=sort.startswith("-"))
        expected = {row.pk for row in listed["end"] if getattr(row, column) is not None}
        assert len(pairs) == len(expected)
        assert {row.pk for row in rows} == expected
    assert listed["end"] and len(listed["-run"]) < len(listed["end"])


def test_jobs_that_end_while_somebody_pages_do_not_move_the_pages() -> None:
    first = [job_row(at, run_ms=at) for at in range(1, 7)]
    page = search_sorted(Filter(), "-run", limit=3)
    job_row(50, run_ms=4)

    rest = search_sorted(Filter(), "-run", after=page.after, limit=3)

    assert page.rows + rest.rows == first[::-1]
    assert rest.after == ""


def test_of_many_jobs_the_newest_are_sorted_and_the_page_says_back_to_when(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "LOOKED_THROUGH", 4)
    slow = job_row(1, run_ms=9_000)
    rows = [job_row(at, run_ms=at) for at in range(2, 8)]

    page = search_sorted(Filter(), "-run", limit=10)

    assert slow not in page.rows
    assert page.rows == rows[:1:-1]
    assert page.sorted_from == BASE_MS + 4
    assert walked(Filter(), "end", limit=2) == [slow, *rows]
    assert walked(Filter(actor="nobody"), "end") == []
