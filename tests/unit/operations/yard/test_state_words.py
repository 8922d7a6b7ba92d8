from __future__ import annotations

from typing import Any

import pytest
from dramatiq.message import Message

from switchyard.broker.admin.browse import SeenMessage
from switchyard.broker.queue.codec import encode
from switchyard.broker.shapes import Page
from switchyard.operations.findings import facts, lateness
from switchyard.operations.findings.facts import YardFacts
from switchyard.operations.overview import most_held, shown_row
from switchyard.operations.queries import Rates
from switchyard.operations.rows import Row, yard_rows
from tests.unit.operations.yards import YARD, lane, pool, state

pytestmark = pytest.mark.usefixtures("small_yard")


def late(waiting: int = 3, age_ms: int = 3_000) -> Row:
    now = state(lane("mail", waiting, age_ms=age_ms), pool("mail", busy=4))
    return next(row for row in yard_rows(YARD, now) if row.name == "mail")


def of(row: Row) -> YardFacts:
    return YardFacts(state(), (row,), [], {})


def waiting(monkeypatch: pytest.MonkeyPatch, first: list[str], last: list[str]) -> None:
    """Let a queue's head and end hold messages of these owners."""

    def look(family: object, lane: str, place: str, *, cursor: int, limit: int) -> Page[SeenMessage]:
        options: list[dict[str, Any]] = [{"owner": owner} for owner in (last if cursor else first)]
        bodies = [encode(Message("mail", "work", (), {}, each)) for each in options]
        return Page([SeenMessage("7", "mail", "live", "waiting", body) for body in bodies])

    monkeypatch.setattr(facts, "families", lambda queues: [object()])
    monkeypatch.setattr(facts, "look", look)


def test_a_late_queue_whose_slots_an_actor_holds_is_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lateness, "late_cause", lambda row, facts: ("export", None))
    row = late()

    found = shown_row(row, of(row))

    assert (found.state.word, found.state.level, found.state.detail) == ("Blocked", "warn", "3.0 × its promise")


@pytest.mark.parametrize(
    ("behind", "detail"), [(80, "about 90 % of acme"), (30, "100 of the next 100 of acme")], ids=["all", "the next"]
)
def test_a_late_queue_full_of_one_owners_jobs_is_flooded(
    monkeypatch: pytest.MonkeyPatch, behind: int, detail: str
) -> None:
    waiting(monkeypatch, ["acme"] * 100, ["acme"] * behind + ["globex"] * (100 - behind))
    row = late(waiting=5_000, age_ms=60_000)

    found = shown_row(row, of(row))

    assert (found.state.word, found.state.level, found.state.detail) == ("Flooded", "bad", detail)


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (["acme"] * 100, ["acme"] * 100),  # nobody else waits behind them
        (["acme"] * 50 + ["globex"] * 50, ["acme"] * 70 + ["globex"] * 30),
        ([""] * 100, [""] * 99 + ["acme"]),
        ([], []),
    ],
)
def test_a_queue_is_not_flooded_by_its_only_owner_or_by_several(
    monkeypatch: pytest.MonkeyPatch, first: list[str], last: list[str]
) -> None:
    waiting(monkeypatch, first, last)
    row = late(waiting=5_000)

    assert shown_row(row, of(row)).state.word == "Late"


def test_only_a_late_queue_has_slots_that_somebody_holds() -> None:
    row = next(row for row in yard_rows(YARD, state()) if row.name == "mail")

    assert most_held(row, of(row)) == ("", 0)
    assert most_held(late(), None) == ("", 0)


def test_done_is_what_ends_in_a_minute() -> None:
    now = state()
    known = type(now)(now.queues, now.pools, now.scheduler_up, rates={"mail": Rates(1, 1, 0.5, 60)})

    rows = {row.name: row.done_a_minute for row in yard_rows(YARD, known)}

    assert rows == {"mail": 30, "hooks": None, "hooks-retry": None, "retries": None}
