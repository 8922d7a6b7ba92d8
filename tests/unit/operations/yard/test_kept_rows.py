from __future__ import annotations

from datetime import timedelta

import pytest

from switchyard.operations import overview
from tests.unit.operations.yards import YARD, lane, state


@pytest.fixture(autouse=True)
def of_the_small_yard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview, "declared_yard", lambda: YARD)
    overview.forget()


def test_the_last_figures_are_kept_without_a_state() -> None:
    assert overview.kept_rows() is None

    overview.keep(state(lane("mail", 3, age_ms=41_000)))
    found = overview.kept_rows()

    assert found is not None
    assert next((row.name, row.waiting, row.state.word) for row in found.rows) == ("mail", 3, "Unknown")
    assert {row.state.word for row in found.rows} == {"Unknown"}


def test_figures_of_an_hour_ago_or_of_another_yard_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    overview.keep(state())
    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(seconds=-1))
    assert overview.kept_rows() is None

    monkeypatch.setattr(overview, "KEPT_FOR", timedelta(hours=1))
    monkeypatch.setattr(overview, "declared_yard", lambda: None)
    assert overview.kept_rows() is None
