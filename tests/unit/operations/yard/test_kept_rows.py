from __future__ import annotations

from datetime import timedelta

import pytest

from switchyard.operations.yard import kept_rows
from tests.unit.operations.yards import YARD, lane, state


@pytest.fixture(autouse=True)
def of_the_small_yard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_rows, "declared_yard", lambda: YARD)
    kept_rows.forget()


def test_the_last_figures_are_kept_without_a_state() -> None:
    assert kept_rows.kept_rows() is None

    kept_rows.keep(state(lane("mail", 3, age_ms=41_000)))
    found = kept_rows.kept_rows()

    assert found is not None
    assert next((row.name, row.waiting, row.state.word) for row in found.rows) == ("mail", 3, "Unknown")
    assert {row.state.word for row in found.rows} == {"Unknown"}


def test_figures_of_an_hour_ago_or_of_another_yard_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    kept_rows.keep(state())
    monkeypatch.setattr(kept_rows, "KEPT_FOR", timedelta(seconds=-1))
    assert kept_rows.kept_rows() is None

    monkeypatch.setattr(kept_rows, "KEPT_FOR", timedelta(hours=1))
    monkeypatch.setattr(kept_rows, "declared_yard", lambda: None)
    assert kept_rows.kept_rows() is None
