from __future__ import annotations

from datetime import timedelta

import pytest

from switchyard.operations import overview
from switchyard.operations.overview import KeptFacts
from tests.unit.operations.yards import YARD, facts, lane, state


@pytest.fixture(autouse=True)
def of_the_small_yard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "declared_yard", lambda: YARD)


def test_the_last_figures_are_kept_without_a_state() -> None:
    kept = KeptFacts()
    assert kept.old_rows() == ((), None)

    kept.keep(facts(state(lane("mail", 3, age_ms=41_000))))
    rows, at = kept.old_rows()

    assert at is not None
    assert next((row.name, row.waiting, row.state.word) for row in rows) == ("mail", 3, "Unknown")
    assert {row.state.word for row in rows} == {"Unknown"}


def test_figures_of_an_hour_ago_or_of_another_yard_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = KeptFacts()
    kept.keep(facts(state()))
    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(seconds=-1))
    assert kept.old_rows() == ((), None)

    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(hours=1))
    monkeypatch.setattr(overview, "declared_yard", lambda: None)
    assert kept.old_rows() == ((), None)
