"""Groups of dead letters as the page shows them: with the error's text, the own frame and how they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import CharField, Count
from django.db.models.functions import Cast, Substr
from django.utils import timezone

from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.dead_letters.pages.tracebacks import own_frame
from switchyard.dead_letters.queries import LetterGroup, first_seen

STEPS, STEP = 12, timedelta(minutes=10)
BAR_PX, GAP_PX, HIGH_PX = 8, 1, 24
# Of a time as text: up to the tens of minutes, 2026-11-21 22:5.
_TEXT = 15


@dataclass(frozen=True, slots=True)
class GroupBar:
    """One bar: letters of ten minutes; ``kind`` is its class in the style sheet without the prefix."""

    x: int
    y: int
    height: int
    kind: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One row of the table of groups.

    Args:
        error: First line of the newest letter's error.
        frame: Innermost frame of the project's own code, or "".
        first_at: Of every letter that the cause has had, also of those that are no longer open.
        bars: Open letters of the last two hours, ten minutes each; ``words`` says the same.
    """

    group: LetterGroup
    error: str
    frame: str
    first_at: datetime
    bars: tuple[GroupBar, ...]
    words: str


def rows_of(groups: Sequence[LetterGroup]) -> list[GroupRow]:
    """Return the rows of some groups, in their order."""
    names = [group.fingerprint for group in groups]
    counts, first = _recent(names), first_seen(names)
    samples = DeadLetter.objects.only("error", "traceback").in_bulk([group.sample for group in groups])
    found = []
    for group in groups:
        bars = _bars(counts.get(group.fingerprint, {}))
        recent = sum(counts.get(group.fingerprint, {}).values())
        sample = samples.get(group.sample)
        found.append(
            GroupRow(
                group=group,
                error=sample.error.strip().split("\n", 1)[0] if sample else "",
                frame=own_frame(sample.traceback) if sample else "",
                first_at=min(first.get(group.fingerprint, group.first_at), group.first_at),
                bars=bars,
                words=f"{recent:,} in the last 2 h" if recent else "none in the last 2 h",
            )
        )
    return found


def _recent(fingerprints: list[str]) -> dict[str, dict[str, int]]:
    """Return for each fingerprint its open letters of the last two hours, by ten minutes."""
    counted: dict[str, dict[str, int]] = {}
    # The states are named, so that the index of groups is used up to the time.
    rows = (
        DeadLetter.objects.filter(is_open=1, fingerprint__in=fingerprints, state__in=OPEN_STATES, died_at__gte=_start())
        .order_by()
        .annotate(step=Substr(Cast("died_at", CharField()), 1, _TEXT))
        .values_list("fingerprint", "step")
        .annotate(letters=Count("id"))
    )
    for fingerprint, step, letters in rows:
        counted.setdefault(fingerprint, {})[step] = letters
    return counted


def _bars(counts: dict[str, int]) -> tuple[GroupBar, ...]:
    steps = [f"{_start() + number * STEP:%Y-%m-%d %H:%M}"[:_TEXT] for number in range(STEPS)]
    most = max(counts.values(), default=0)
    bars = []
    for number, step in enumerate(steps):
        letters = counts.get(step, 0)
        height = max(3, round(HIGH_PX * letters / most)) if letters else 1
        kind = "trend" if letters else "trend-none"
        bars.append(GroupBar(number * (BAR_PX + GAP_PX), HIGH_PX - height, height, kind))
    return tuple(bars)


def _start() -> datetime:
    now = timezone.now()
    return now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0) - (STEPS - 1) * STEP
