"""Orders of the list of queues; its own is that of the topology."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from switchyard.console.sort_heads import SortColumn, SortHead, heads_of
from switchyard.operations.rows import Row

# A row of the yard, its pause, and its counts of retries and of dead letters.
QueueRow = tuple[Row, Any, int | None, int | None]

COLUMNS: Final = tuple(
    SortColumn(name, text, (f"-{name}", name))
    for name, text in (
        ("waiting", "Waiting"),
        ("oldest", "Oldest"),
        ("later", "Later"),
        ("done", "Done"),
        ("retrying", "Retrying"),
        ("dead", "Dead"),
    )
)
ORDERS: Final = frozenset(order for column in COLUMNS for order in column.orders)
_FIGURES: Final[dict[str, Callable[[QueueRow], float | None]]] = {
    "waiting": lambda row: row[0].waiting,
    "oldest": lambda row: row[0].oldest_age_ms,
    "later": lambda row: row[0].held,
    "done": lambda row: row[0].done_a_minute,
    "retrying": lambda row: row[2],
    "dead": lambda row: row[3],
}


def heads(sort: str) -> dict[str, SortHead]:
    """Return the headings of the list."""
    return heads_of(COLUMNS, {}, sort)


def in_order(rows: Sequence[QueueRow], sort: str) -> list[QueueRow]:
    """Return queues in an order, those without a figure last; the others, and of no such order, as in the topology."""
    if sort not in ORDERS:
        return list(rows)
    figure = _FIGURES[sort.lstrip("-")]
    found = [(figure(row), row) for row in rows]
    known = [(value, row) for value, row in found if value is not None]
    known.sort(key=lambda pair: pair[0], reverse=sort.startswith("-"))
    return [*(row for _, row in known), *(row for value, row in found if value is None)]
