"""Orders of the list of actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from switchyard.actors.metrics import ActorMetrics
from switchyard.actors.queries import ActorFacts
from switchyard.console.sort_heads import ASCENDING, SortColumn, SortHead, heads_of

Row = tuple[ActorFacts, ActorMetrics | None]

# Outcomes of attempts that did not do what they were to do.
FAILED: Final = frozenset({"dead", "retried", "expired"})
COLUMNS: Final = (
    SortColumn("name", "Actor", ("", "-name"), own=ASCENDING),
    SortColumn("ended", "Ended", ("-ended", "ended")),
    SortColumn("failed", "How, by failures", ("-failed", "failed")),
    SortColumn("run", "Ran, 95 %", ("-run", "run")),
)


def heads(sort: str) -> dict[str, SortHead]:
    """Return the headings of the list."""
    return heads_of(COLUMNS, {}, sort)


def in_order(rows: Sequence[Row], sort: str) -> list[Row]:
    """Return actors in an order, those without a figure last; of the same figure, and of no such order, by name."""
    by_name = sorted(rows, key=lambda row: row[0].name, reverse=sort == "-name")
    figure = _FIGURES.get(sort.lstrip("-"))
    if figure is None:
        return by_name
    found = [(row, None if row[1] is None else figure(row[1])) for row in by_name]
    known = [(value, row) for row, value in found if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return [*(row for _, row in known), *(row for row, value in found if value is None)]


def _failed(ran: ActorMetrics) -> float | None:
    return sum(count for outcome, count in ran.outcomes if outcome in FAILED)


def _run_ms(ran: ActorMetrics) -> float | None:
    if ran.run is None:
        return None
    return float("inf") if ran.run.p95_ms is None else ran.run.p95_ms


_FIGURES: Final[dict[str, Callable[[ActorMetrics], float | None]]] = {
    "ended": lambda ran: ran.attempts,
    "failed": _failed,
    "run": _run_ms,
}
