"""Heat map of waits: starts by how long they waited and when, each number with the jobs behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from switchyard.broker.stores.yard_facts import CLASSES, LEAST_MS, WAITS, Counts
from switchyard.console.formatting import duration, iso
from switchyard.console.links import jobs_url

# First classes of the rows: each is of waits up to four times as long as in the one below.
FIRSTS: Final = (0, *range(3, CLASSES, 2))
LEVELS: Final = 5


@dataclass(frozen=True, slots=True)
class HeatCell:
    """Starts of one time and one row; ``level`` is from 0, for none, to 5, and ``url`` the list of their jobs."""

    text: str
    level: int
    says: str
    url: str


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Rows of cells, the longest waits first, each with its title; ``times`` stand above the columns."""

    times: tuple[str, ...]
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]


def heat_map(
    columns: Sequence[Counts], starts: Sequence[int], column_ms: int, clock: Callable[[int], str], only: dict[str, str]
) -> HeatMap | None:
    """Return the heat map of counts by columns; ``None`` where nothing started.

    Args:
        starts: Of the columns, ms since the epoch.
        clock: Writes such a time.
        only: Filter of the jobs, such as their queue.
    """
    ranges = pairwise((*FIRSTS, CLASSES))
    counts = [[sum(column.get(WAITS + n, 0) for n in range(*row)) for column in columns] for row in ranges]
    filled = [at for at, row in enumerate(counts) if any(row)]
    if not filled:
        return None
    most, rows, times = max(map(max, counts)), [], tuple(map(clock, starts))
    spans = [jobs_url(**only, since=iso(start, "seconds"), until=iso(start + column_ms, "seconds")) for start in starts]
    for at in range(filled[-1], filled[0] - 1, -1):
        (title, waited), cells = _row(at), []
        for time, span, count in zip(times, spans, counts[at], strict=True):
            level = math.ceil(LEVELS * math.log1p(count) / math.log1p(most))
            url = f"{span}&waited={waited}" if count and span else ""
            cells.append(HeatCell(short(count), level, f"{time}: {count:,} waited {title}", url))
        rows.append((title, tuple(cells)))
    return HeatMap(times, tuple(rows))


def _row(at: int) -> tuple[str, str]:
    """Return a row's title, and its filter of jobs."""
    low = LEAST_MS * 2 ** (FIRSTS[at] - 1) if at else 0
    if at == len(FIRSTS) - 1:
        return f"over {duration(low)}", f"{low}-"
    high = LEAST_MS * 2 ** (FIRSTS[at + 1] - 1)
    return f"up to {duration(high)}", f"{low if at else ''}-{high}"


def short(count: int) -> str:
    """Return a count in at most four characters: ``812``, ``1.2k``, ``45k``, ``3.1M``; "" for none."""
    value, unit = float(count), ""
    for larger in "kMG":
        if value < 999.5:
            break
        value, unit = value / 1_000, larger
    return f"{value:.1f}{unit}" if unit and value < 9.95 else f"{value:.0f}{unit}" if count else ""
