"""Pages of ended jobs in other orders than the newest first: by run time, by wait, oldest first.

No index has run times or waits: each would cost every job a write. They are sorted within a window, the newest
``LOOKED_THROUGH`` rows of the index that the filter chooses; the window begins at the same row for every page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from django.db.models import Q, QuerySet

from switchyard.history.cursors import LAST_ROW, Cursor
from switchyard.history.filters import Filter
from switchyard.history.models import JobRow
from switchyard.history.queries import (
    CHUNK,
    LOOKED_THROUGH,
    between,
    chosen,
    conditions,
    having_all,
    matching,
    newest_having,
    searched_values,
    time_column,
)

# Name in an address -> column; "end" is the column that orders the list anyhow.
COLUMNS: Final = {"run": "run_ms", "wait": "wait_ms", "end": ""}
SORTS: Final = ("-run", "run", "-wait", "wait", "end")
_PLACE: Final = re.compile(r"([0-9]{1,15}-[0-9]{1,18})\.([0-9]{1,15})-([0-9]{1,18})")


class SortedPage(NamedTuple):
    """A page of a sorted list.

    Args:
        after: Place from which the next page goes on; "" at the end.
        sorted_from: Time (ms since the epoch) of the oldest row of a window that does not hold all that match, else
            ``None``.
    """

    rows: list[JobRow]
    after: str
    sorted_from: int | None


@dataclass(frozen=True, slots=True)
class _Place:
    """Newest row of the window, then value and row after which the page begins."""

    top: Cursor
    value: int
    row: int

    def __str__(self) -> str:
        return f"{self.top}.{self.value}-{self.row}"


def sort_of(text: str) -> str:
    """Return an order as an address names it; "" is the newest first.

    Raises:
        ValueError: there is no such order.
    """
    if text and text not in SORTS:
        raise ValueError(f"sort: {text!r:.100} is no order of jobs; there are {', '.join(SORTS)}")
    return text


def search_sorted(wanted: Filter, sort: str, *, after: str = "", limit: int) -> SortedPage:
    """Return a page of the ended jobs that match a filter, in another order; those without the value are left out.

    Args:
        sort: One of ``SORTS``; with ``-`` the largest first.
        after: Place of the page before.

    Raises:
        ValueError: the place is none of a sorted list.
    """
    place = _parse(after)
    time = time_column(wanted)
    values = searched_values(wanted)
    if values:
        return _of_value(wanted, values, time, sort, place, limit)
    if sort == "end":
        return _oldest_first(wanted, time, place, limit)
    picked, time = chosen(wanted, time)
    rows = between(JobRow.objects.filter(picked), time, wanted, None)
    if place is not None:
        rows = rows.filter(
            Q(**{f"{time}__lt": place.top.at}) | Q(pk__lte=place.top.row), **{f"{time}__lte": place.top.at}
        )
    ends = rows.values_list(time, "pk")
    first, bound = ends.first(), ends[LOOKED_THROUGH - 1 : LOOKED_THROUGH].first()
    if first is None:
        return SortedPage([], "", None)
    if bound is not None:
        rows = rows.filter(Q(**{f"{time}__gt": bound[0]}) | Q(pk__gte=bound[1]), **{f"{time}__gte": bound[0]})
    top, column = Cursor(*first), COLUMNS[sort.lstrip("-")]
    found = _sorted(matching(rows, conditions(wanted)), column, sort, place)
    pairs = [(int(value), int(pk)) for value, pk in found.values_list(column, "pk")[: limit + 1]]
    return _page(pairs, top, limit, None if bound is None else bound[0])


def _parse(after: str) -> _Place | None:
    if not after:
        return None
    found = _PLACE.fullmatch(after)
    if found is None:
        raise ValueError(f"after: {after!r:.100} is no place in a sorted list; begin with its first page")
    return _Place(Cursor.parse(found[1]), int(found[2]), int(found[3]))


def _sorted(rows: QuerySet[JobRow], column: str, sort: str, place: _Place | None) -> QuerySet[JobRow]:
    is_down = sort.startswith("-")
    compared, mark = ("lt", "-") if is_down else ("gt", "")
    rows = rows.filter(**{f"{column}__isnull": False})
    if place is not None:
        same = Q(**{column: place.value, f"pk__{compared}": place.row})
        rows = rows.filter(Q(**{f"{column}__{compared}": place.value}) | same)
    return rows.order_by(f"{mark}{column}", f"{mark}pk")


def _page(pairs: Sequence[tuple[int, int]], top: Cursor, limit: int, sorted_from: int | None) -> SortedPage:
    shown = pairs[:limit]
    rows = JobRow.objects.in_bulk([pk for _, pk in shown])
    after = str(_Place(top, *shown[-1])) if len(pairs) > limit else ""
    return SortedPage([rows[pk] for _, pk in shown if pk in rows], after, sorted_from)


def _oldest_first(wanted: Filter, time: str, place: _Place | None, limit: int) -> SortedPage:
    """Return a page along the index, from its other end; at most ``LOOKED_THROUGH`` rows are looked through."""
    picked, time = chosen(wanted, time)
    rows = between(JobRow.objects.filter(picked), time, wanted, None).order_by(time, "pk")
    if place is not None:
        rows = rows.filter(Q(**{f"{time}__gt": place.value}) | Q(pk__gt=place.row), **{f"{time}__gte": place.value})
    bound = rows.values_list(time, "pk")[LOOKED_THROUGH - 1 : LOOKED_THROUGH].first()
    if bound is not None:
        rows = rows.filter(Q(**{f"{time}__lt": bound[0]}) | Q(pk__lte=bound[1]), **{f"{time}__lte": bound[0]})
    pairs = [(at, pk) for at, pk in matching(rows, conditions(wanted)).values_list(time, "pk")[: limit + 1]]
    page = _page(pairs, Cursor(0, 0), limit, None)
    return page if page.after or bound is None else page._replace(after=str(_Place(Cursor(0, 0), *bound)))


def _of_value(
    wanted: Filter, values: Sequence[tuple[str, str]], time: str, sort: str, place: _Place | None, limit: int
) -> SortedPage:
    """Return a page of the jobs that have all values; the newest jobs of the first value are sorted."""
    ids = newest_having(values[0], wanted, time, None if place is None else place.top.at)
    if not ids:
        return SortedPage([], "", None)
    column, is_down = COLUMNS[sort.lstrip("-")] or time, sort.startswith("-")
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(ids), CHUNK):
        names = having_all([job_id for job_id, _ in ids[start : start + CHUNK]], values[1:])
        rows = between(JobRow.objects.filter(job_id__in=names), time, wanted, None).order_by()
        rows = matching(rows, [*conditions(wanted), Q(**{f"{time}__isnull": False, f"{column}__isnull": False})])
        pairs += [(int(found), int(pk)) for found, pk in rows.values_list(column, "pk")]
    pairs.sort(reverse=is_down)
    if place is not None:
        start_of = (place.value, place.row)
        pairs = [pair for pair in pairs if (pair < start_of if is_down else pair > start_of)]
    cut = ids[-1][1] if len(ids) == LOOKED_THROUGH else None
    return _page(pairs, Cursor(ids[0][1], LAST_ROW), limit, cut)
