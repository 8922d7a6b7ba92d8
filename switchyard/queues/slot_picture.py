"""Picture of what held a queue's slots lately: one line a slot, one block a job, in SVG units."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from switchyard.broker.clock import datetime_of
from switchyard.console.formatting import duration

SPAN_MS: Final = 4 * 60_000
# A queue with many short jobs is drawn over a shorter time, so that a page that is polled stays small.
MOST_BLOCKS: Final = 300
MOST_SLOTS: Final = 16
LEAST_SPAN_MS: Final = 5_000
WIDTH, SLOT_HEIGHT = 1_000, 26
LEAST, LETTER, MARKS = 2, 7, 4


@dataclass(frozen=True, slots=True)
class SlotRun:
    """A job in a slot. Times in ms since the epoch; ``ended_at`` is ``None`` while it runs."""

    actor: str
    started_at: int
    ended_at: int | None


@dataclass(frozen=True, slots=True)
class SlotBar:
    """A run as it is drawn; ``kind`` is ``ok``, ``live`` or ``bad``, the class in the style sheet."""

    x: float
    y: int
    width: float
    kind: str
    label: str
    title: str

    @property
    def label_x(self) -> float:
        """Place of the label."""
        return round(self.x + 8, 1)

    @property
    def hatch_x(self) -> float | None:
        """Place of the hatched end; ``None`` without one."""
        return round(self.x + self.width - 9, 1) if self.kind == "bad" and self.width > 12 else None


@dataclass(frozen=True, slots=True)
class SlotPicture:
    """The picture.

    Args:
        slots: Lines that are drawn, at most ``MOST_SLOTS``.
        marks: Places of the axis with their times.
        span: The time that is drawn, as text.
        has_long: A run is marked that took longer than the queue promises to start in.
    """

    blocks: tuple[SlotBar, ...]
    slots: int
    marks: tuple[tuple[float, str], ...]
    span: str
    height: int
    has_long: bool

    @property
    def lines(self) -> list[tuple[int, int]]:
        """Place and number of each line."""
        return [(number * SLOT_HEIGHT, number + 1) for number in range(self.slots)]


def picture_of(runs: Iterable[SlotRun], slots: int, now: int, *, late_after_ms: int | None) -> SlotPicture | None:
    """Return the picture, or ``None`` where nothing ran.

    Args:
        runs: In any order.
        late_after_ms: Promise of a queue that is late now: longer runs are marked.
    """
    found = sorted(runs, key=lambda run: now if run.ended_at is None else run.ended_at, reverse=True)
    cut = len(found) > MOST_BLOCKS
    found = found[:MOST_BLOCKS]
    began = max(now - SPAN_MS, min((run.started_at for run in found), default=now) - LEAST_SPAN_MS)
    if cut:
        ends = [run.ended_at for run in found if run.ended_at is not None]
        began = min(max(began, min(ends, default=began)), now - LEAST_SPAN_MS)
    drawn = min(max(slots, 1), MOST_SLOTS)
    blocks = tuple(_blocks(found, drawn, began, now, late_after_ms))
    if not blocks:
        return None
    step = (now - began) / MARKS
    marks = tuple(
        (number * WIDTH / MARKS, f"{datetime_of(int(began + number * step)):%H:%M:%S}") for number in range(MARKS + 1)
    )
    has_long = any(block.kind == "bad" for block in blocks)
    return SlotPicture(blocks, drawn, marks, duration(now - began), drawn * SLOT_HEIGHT, has_long)


def _blocks(runs: Iterable[SlotRun], slots: int, began: int, now: int, late_after_ms: int | None) -> Iterator[SlotBar]:
    """Yield the blocks, each on the first line that is free at its start; what finds none is left out."""
    free_at = [0] * slots
    scale = WIDTH / (now - began)
    for run in sorted(runs, key=lambda run: run.started_at):
        end = now if run.ended_at is None else run.ended_at
        if end < began:
            continue
        slot = next((number for number, at in enumerate(free_at) if at <= run.started_at), None)
        if slot is None:
            continue
        free_at[slot] = max(end, run.started_at + 1)
        start = max(run.started_at, began)
        width = max((end - start) * scale, LEAST)
        took = max(end - run.started_at, 0)
        is_long = late_after_ms is not None and took > late_after_ms
        kind = "bad" if is_long else "live" if run.ended_at is None else "ok"
        label = run.actor if len(run.actor) * LETTER + 16 < width else ""
        so_far = " so far" if run.ended_at is None else ""
        x = min((start - began) * scale, WIDTH - width)
        yield SlotBar(
            round(x, 1), slot * SLOT_HEIGHT, round(width, 1), kind, label, f"{run.actor}, {duration(took)}{so_far}"
        )
