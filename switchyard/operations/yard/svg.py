"""Geometry of a row's marks, in SVG units. The text beside them states the same figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

from switchyard.operations.rows import Row

PROMISE_X = 136
SIGNAL_X = 284
LINEAR = SIGNAL_X - PROMISE_X
LOGARITHMIC = 60
WAGON, GAP = 7, 2
SLOT, SLOT_GAP = 11, 4
SINGLE_SLOTS = 8
LONG_WAGON = 112


@dataclass(frozen=True, slots=True)
class Mark:
    """One rectangle; ``kind`` is its class in the style sheet."""

    x: int
    width: int
    kind: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """The marks of one row. ``held`` slots are those of the actor ``holder``, behind which a late queue waits."""

    train: tuple[Mark, ...]
    slots: tuple[Mark, ...]
    siding: tuple[Mark, ...]
    holder: str = ""
    held: int = 0


def draw(row: Row, holder: str = "", held: int = 0) -> Drawing:
    """Return the marks of a row."""
    held = min(held, row.busy)
    return Drawing(_train(row), _slots(row, held), _siding(row.retrying or 0), holder if held else "", held)


def _train(row: Row) -> tuple[Mark, ...]:
    if not row.waiting and not (row.kind != "queue" and row.held):
        return ()
    if row.ratio is None:
        length = min(LINEAR, 18 * math.log10(1 + (row.waiting or 0) + row.held) + WAGON)
    else:
        past = min(math.log10(max(row.ratio, 1.0)), 2.0)
        length = min(row.ratio, 1.0) * LINEAR + past * LOGARITHMIC
    count = max(1, int(length // (WAGON + GAP)))
    places = (SIGNAL_X - 4 - (index + 1) * (WAGON + GAP) + GAP for index in range(count))
    return tuple(Mark(x, WAGON, "past" if x < PROMISE_X and row.ratio is not None else "wagon") for x in places)


def _slots(row: Row, held: int) -> tuple[Mark, ...]:
    if not row.slots_known:
        return ()
    if row.slots == 0:
        return (Mark(0, SLOT, "gone"),)
    if row.slots <= SINGLE_SLOTS:
        step = SLOT + SLOT_GAP
        kinds = ["held"] * held + ["busy"] * (row.busy - held) + ["idle"] * (row.slots - row.busy)
        return tuple(Mark(index * step, SLOT, kind) for index, kind in enumerate(kinds[: row.slots]))
    filled = round(LONG_WAGON * min(row.busy / row.slots, 1.0))
    if row.busy and not filled:
        filled = 2
    marks = [Mark(0, LONG_WAGON, "idle")]
    if filled:
        marks.append(Mark(0, filled, "busy"))
    if held:
        marks.append(Mark(0, max(2, round(LONG_WAGON * held / row.slots)), "held"))
    return tuple(marks)


def _siding(retrying: int) -> tuple[Mark, ...]:
    count = min(8, math.ceil(math.log10(retrying + 1) * 2)) if retrying else 0
    return tuple(Mark(30 + index * (WAGON + GAP + 1), WAGON, "hollow") for index in range(count))
