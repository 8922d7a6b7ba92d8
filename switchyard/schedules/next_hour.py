"""The ticks of the next hour as a picture: one line a schedule, one mark a tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from switchyard.schedules.queries import ScheduleRow
from switchyard.schedules.registry import Schedule

WIDTH_PX, LEFT_PX, LINE_PX, TOP_PX = 1_000, 200, 30, 8
HOUR, STEP = timedelta(hours=1), timedelta(minutes=10)
MOST_TICKS = 60


@dataclass(frozen=True, slots=True)
class HourLine:
    """One schedule; ``marks`` are places of its ticks, ``words`` says them."""

    name: str
    y: int
    marks: tuple[int, ...]
    words: str


@dataclass(frozen=True, slots=True)
class HourPicture:
    """The lines and the axis: place and time."""

    lines: tuple[HourLine, ...]
    axis: tuple[tuple[int, str], ...]
    height: int


def draw(schedules: Sequence[Schedule], rows: Sequence[ScheduleRow], now: datetime) -> HourPicture | None:
    """Return the picture; ``None`` where no schedule is due within the hour."""
    paused = {row.name for row in rows if row.paused_at and row.next_tick is None}
    lines: list[HourLine] = []
    for schedule in schedules:
        ticks = [] if schedule.name in paused else _ticks(schedule, now)
        if ticks:
            y = TOP_PX + len(lines) * LINE_PX
            words = f"{schedule.name}: {', '.join(f'{tick:%H:%M}' for tick in ticks)}"
            lines.append(HourLine(schedule.name, y, tuple(_place(tick, now) for tick in ticks), words))
    if not lines:
        return None
    first = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0) + STEP
    axis = [(_place(first + number * STEP, now), f"{first + number * STEP:%H:%M}") for number in range(6)]
    return HourPicture(tuple(lines), tuple(axis), TOP_PX + len(lines) * LINE_PX)


def _ticks(schedule: Schedule, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    tick = schedule.next(now)
    while tick is not None and tick <= now + HOUR and len(found) < MOST_TICKS:
        found.append(tick)
        tick = schedule.next(tick)
    return found


def _place(moment: datetime, now: datetime) -> int:
    return LEFT_PX + round((moment - now) / HOUR * (WIDTH_PX - LEFT_PX - 20))
