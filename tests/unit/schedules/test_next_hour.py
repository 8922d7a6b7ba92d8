from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from switchyard.schedules.views import LEFT_PX, LINE_PX, TOP_PX, WIDTH_PX, draw

NOW = datetime(2026, 11, 20, 2, 54, 10, tzinfo=UTC)


def every(name: str, minutes: int, *, seconds: int = 0) -> Any:
    """Return a schedule that is due every so many minutes of the hour."""
    step = timedelta(minutes=minutes, seconds=seconds)

    def next_after(moment: datetime) -> datetime:
        begin = moment.replace(minute=0, second=0, microsecond=0)
        return begin + ((moment - begin) // step + 1) * step

    return SimpleNamespace(name=name, next=next_after)


def drawn(*schedules: Any, rows: Iterable[Any] = ()) -> dict[str, Any]:
    return draw(schedules, list(rows), NOW)


def test_a_schedule_has_a_mark_for_each_tick_of_the_hour() -> None:
    [line] = drawn(every("rates", 20))["lines"]

    assert line["words"] == "rates: 03:00, 03:20, 03:40"
    assert [place - LEFT_PX for place in line["marks"]] == [76, 336, 596]
    assert (line["y"], line["name"]) == (TOP_PX, "rates")


def test_schedules_stand_below_each_other_and_the_axis_names_the_tens() -> None:
    found = drawn(every("rates", 20), every("report", 30))

    assert [line["y"] for line in found["lines"]] == [TOP_PX, TOP_PX + LINE_PX]
    assert found["height"] == TOP_PX + 2 * LINE_PX
    assert [text for _, text in found["axis"]] == ["03:00", "03:10", "03:20", "03:30", "03:40", "03:50"]
    assert all(LEFT_PX <= place <= WIDTH_PX for place, _ in found["axis"])
