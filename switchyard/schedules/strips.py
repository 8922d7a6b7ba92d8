"""The last ticks of a schedule as bars: full for one on time, short for a late one, outlined for a missed one."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass

from switchyard.schedules.models import ScheduleTick

LATE_MS = 60_000
STEP_PX, HIGH_PX, SHORT_PX = 8, 16, 7


@dataclass(frozen=True, slots=True)
class TickBar:
    """One bar; ``kind`` is its class in the style sheet without the prefix."""

    x: int
    y: int
    height: int
    kind: str


@dataclass(frozen=True, slots=True)
class TickStrip:
    """Bars, oldest first, and the same in words."""

    bars: tuple[TickBar, ...]
    words: str


def draw(ticks: list[ScheduleTick]) -> TickStrip:
    """Return the strip of a schedule's last ticks."""
    bars, counts = [], {"on time": 0, "late": 0, "missed": 0, "run now": 0}
    for number, tick in enumerate(ticks):
        word = word_of(tick)
        counts[word] += 1
        short = word == "late"
        kind = {"missed": "gone", "late": "late-bar"}.get(word, "busy")
        height = SHORT_PX if short else HIGH_PX
        bars.append(TickBar(number * STEP_PX + 1, HIGH_PX + 1 - height, height, kind))
    return TickStrip(tuple(bars), ", ".join(f"{count} {word}" for word, count in counts.items() if count))


def word_of(tick: ScheduleTick) -> str:
    """Return what became of a tick: ``on time``, ``late``, ``missed`` or ``run now``."""
    if tick.outcome == ScheduleTick.Outcome.SENT:
        return "late" if (tick.lateness_ms or 0) > LATE_MS else "on time"
    return "missed" if tick.outcome == ScheduleTick.Outcome.MISSED else "run now"


KEPT = 50


def note_sent(schedule: str, tick: datetime.datetime, job_id: str, lateness_ms: int | None) -> None:
    """Keep a tick that was sent. Nothing changes when it is kept already."""
    sent = ScheduleTick.Outcome.SENT
    _keep(schedule, [ScheduleTick(due_at=tick, outcome=sent, job_id=job_id, lateness_ms=lateness_ms)])


def note_run(schedule: str, now: datetime.datetime, job_id: str, by: str) -> None:
    """Keep a run that a person asked for."""
    _keep(schedule, [ScheduleTick(due_at=now, outcome=ScheduleTick.Outcome.RUN_NOW, job_id=job_id, by=by)])


def note_missed(schedule: str, ticks: Iterable[datetime.datetime], by: str) -> None:
    """Keep ticks that fell due during a pause, at most ``KEPT`` of them."""
    _keep(schedule, [ScheduleTick(due_at=tick, outcome=ScheduleTick.Outcome.MISSED, by=by) for tick in ticks])


def last_ticks(schedule: str, limit: int = KEPT) -> list[ScheduleTick]:
    """Return a schedule's last ticks and runs, newest first."""
    return list(ScheduleTick.objects.filter(schedule=schedule).order_by("-due_at", "-id")[:limit])


def _keep(schedule: str, ticks: list[ScheduleTick]) -> None:
    if not ticks:
        return
    for tick in ticks:
        tick.schedule, tick.by = schedule, tick.by[:150]
    ScheduleTick.objects.bulk_create(ticks, ignore_conflicts=True)
    of_this = ScheduleTick.objects.filter(schedule=schedule)
    too_many = of_this.order_by("-due_at", "-id").values_list("due_at", flat=True)[KEPT : KEPT + 1]
    for oldest in too_many:
        of_this.filter(due_at__lte=oldest).delete()
