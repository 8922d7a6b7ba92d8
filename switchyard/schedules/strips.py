"""The last ticks of a schedule as bars: full for one on time, short for a late one, outlined for a missed one."""

from __future__ import annotations

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
