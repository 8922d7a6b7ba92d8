"""Headings of columns by which a list is sorted."""

from __future__ import annotations

from switchyard.console.lists import ASCENDING, SortColumn, heads_of

COLUMNS = (SortColumn("name", "Name", ("", "-name"), own=ASCENDING), SortColumn("size", "Size", ("-size", "size")))


def clicks(name: str, count: int) -> list[tuple[str, str]]:
    """Follow a heading's link so often; return each order with the direction that it shows."""
    sort, seen = "", []
    for _ in range(count):
        sort = heads_of(COLUMNS, sort)[name].link.partition("sort=")[2]
        seen.append((sort, heads_of(COLUMNS, sort)[name].direction))
    return seen


def test_clicks_go_through_a_columns_orders_and_back() -> None:
    assert clicks("size", 3) == [("-size", "descending"), ("size", "ascending"), ("", "")]
    assert clicks("name", 2) == [("-name", "descending"), ("", "ascending")]
