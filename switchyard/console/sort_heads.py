"""Heads of columns by which a list is sorted: links that carry the order in the address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlencode

DESCENDING = "descending"
ASCENDING = "ascending"


class SortColumn(NamedTuple):
    """A column that can be sorted.

    Args:
        name: Its name in templates.
        text: Its heading.
        orders: Values of ``sort`` in the order of the clicks; "" is the list's own order.
        own: Direction of the list's own order.
    """

    name: str
    text: str
    orders: tuple[str, ...]
    own: str = DESCENDING


class SortHead(NamedTuple):
    """A heading with the address that sorts by it.

    Args:
        direction: ``ascending`` or ``descending`` while the list is sorted by it, else "".
    """

    text: str
    link: str
    direction: str


def heads_of(columns: Iterable[SortColumn], query: Mapping[str, str], sort: str) -> dict[str, SortHead]:
    """Return the headings of a list by their names; each click goes on to the next order of its column.

    Args:
        query: The list's address without order and place.
        sort: The order that is shown.
    """
    found = {}
    for column in columns:
        place = column.orders.index(sort) if sort in column.orders else -1
        following = (*column.orders, "")[place + 1]
        shown = column.own if not sort else DESCENDING if sort.startswith("-") else ASCENDING
        address = urlencode({**query, **({"sort": following} if following else {})})
        found[column.name] = SortHead(column.text, f"?{address}", "" if place < 0 else shown)
    return found
