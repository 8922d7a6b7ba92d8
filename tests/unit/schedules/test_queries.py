"""The headline of the schedules' page judges by ticks that came."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from switchyard.schedules.queries import ScheduleRow, headline

CAME = datetime(2026, 11, 22, 3, tzinfo=UTC)


def row(last_tick: datetime | None = None, lateness_ms: int | None = None) -> ScheduleRow:
    return ScheduleRow("clean", "0 3 * * *", "default", "last", last_tick, None, lateness_ms, None)


@pytest.mark.parametrize(
    ("rows", "leads", "says"),
    [
        ([], True, "No schedules"),
        ([row(), row()], True, "2 schedules, no tick yet"),
        ([row(CAME, 300), row()], True, "2 schedules, sent on time"),
        ([row(CAME, 3_600_000), row()], True, "1 schedule was sent late"),
        ([row(CAME, 300)], False, "No schedule is sent"),
        ([row(CAME, 300)], None, "Schedules"),
    ],
)
def test_headline_names_what_has_come(rows: list[ScheduleRow], leads: bool | None, says: str) -> None:
    assert headline(rows, leads) == says
