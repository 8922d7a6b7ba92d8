"""Django's list of dead letters with pages by place, in several orders, and counts that are bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlencode

from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import PAGE_VAR, ChangeList
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.db.models.expressions import Combinable
from django.http import HttpRequest

from switchyard.console.sort_heads import SortColumn, SortHead, heads_of
from switchyard.dead_letters.models import DeadLetter

# Letters that are counted, and among which a list without an index for its order is sorted.
LOOKED_THROUGH: Final = 10_000
AFTER_VAR, SORT_VAR = "after", "sort"
OWN_PARAMS: Final = (AFTER_VAR, SORT_VAR, PAGE_VAR)
# Order -> column. Times have an index; the others are sorted among the newest letters.
COLUMNS: Final = {"died": "died_at", "attempts": "attempts", "actor": "actor"}
SORT_COLUMNS: Final = (
    SortColumn("actor", "Actor", ("actor", "-actor")),
    SortColumn("attempts", "Attempts", ("-attempts", "attempts")),
    SortColumn("died", "Died (UTC)", ("", "died")),
)
SORTED: Final = {
    "": "Newest first",
    "died": "Oldest first",
    "actor": "By actor",
    "-actor": "By actor, from Z to A",
    "attempts": "Fewest attempts first",
    "-attempts": "Most attempts first",
}
_PLACE: Final = re.compile(r"(?P<top>[^~]{1,40})~(?P<row>[0-9]{1,18})~(?P<value>.{0,255})", re.DOTALL)


class LetterList(ChangeList):
    """List of letters whose next page goes on behind the last letter, however many arrive meanwhile.

    ``after_link`` and ``first_link`` lead on and back. ``is_counted`` is false where more than ``LOOKED_THROUGH``
    match; ``sorted_from`` is the time of the oldest letter that a sorted list compared, where there are more.
    """

    after_link = first_link = ""
    sorted_from: datetime | None = None

    def get_filters_params(self, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what filters read of the address."""
        found = super().get_filters_params(params)
        return {name: value for name, value in found.items() if name not in OWN_PARAMS}

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[DeadLetter]) -> list[str | Combinable]:
        """Return the order of the table; lists in another order are sorted from it."""
        return ["died_at", "id"] if self._sort(request) == "died" else ["-died_at", "-id"]

    def get_results(self, request: HttpRequest) -> None:
        """Read a page and count.

        Raises:
            IncorrectLookupParameters: the address has no usable place; Django redirects to the list.
        """
        sort, size = self._sort(request), self.list_per_page
        place = _parse(request.GET.get(AFTER_VAR, ""))
        count = self.queryset.order_by()[: LOOKED_THROUGH + 1].count()
        if sort.lstrip("-") in ("", "died"):
            rows, after = self._by_time(place, size, is_up=sort == "died")
        else:
            rows, after = self._sorted(sort, place, size)
        query = {name: str(value) for name, value in request.GET.items() if name not in OWN_PARAMS}
        ordered = query | ({SORT_VAR: sort} if sort else {})
        self.result_list = rows
        self.result_count = min(count, LOOKED_THROUGH)
        self.is_counted = count <= LOOKED_THROUGH
        self.after_link = f"?{urlencode({**ordered, AFTER_VAR: after})}" if after else ""
        self.first_link = f"?{urlencode(ordered)}" if place else ""
        self.heads = sort_heads(query, sort)
        self.sorted_words = SORTED[sort]
        self.show_full_result_count, self.full_result_count = False, None
        self.show_admin_actions, self.can_show_all, self.multi_page = True, False, bool(after)
        self.paginator = Paginator(rows, size)

    @staticmethod
    def _sort(request: HttpRequest) -> str:
        given = request.GET.get(SORT_VAR, "")
        return given if given in SORTED else ""

    def _by_time(self, place: Mapping[str, str] | None, size: int, *, is_up: bool) -> tuple[list[DeadLetter], str]:
        rows = self.queryset
        if place is not None:
            at, side = _time_of(place["value"]), "gt" if is_up else "lt"
            behind = Q(**{f"died_at__{side}": at}) | Q(died_at=at, **{f"pk__{side}": int(place["row"])})
            rows = rows.filter(behind, **{f"died_at__{side}e": at})
        found = list(rows[: size + 1])
        last = found[size - 1] if len(found) > size else None
        return found[:size], "" if last is None else f"-~{last.pk}~{last.died_at.isoformat()}"

    def _sorted(self, sort: str, place: Mapping[str, str] | None, size: int) -> tuple[list[DeadLetter], str]:
        """Return a page of the newest letters, sorted; every page sorts from the same letter on."""
        column, is_down = COLUMNS[sort.lstrip("-")], sort.startswith("-")
        rows = self.queryset
        if place is not None:
            rows = rows.filter(died_at__lte=_time_of(place["top"]))
        window = list(rows.values_list(column, "pk", "died_at")[:LOOKED_THROUGH])
        if len(window) == LOOKED_THROUGH:
            self.sorted_from = window[-1][2]
        pairs = sorted(((value, pk) for value, pk, _ in window), reverse=is_down)
        if place is not None:
            last = (int(place["value"]) if column == "attempts" else place["value"], int(place["row"]))
            pairs = [pair for pair in pairs if (pair < last if is_down else pair > last)]
        shown = pairs[:size]
        found = self.queryset.in_bulk([pk for _, pk in shown])
        top = place["top"] if place is not None else window[0][2].isoformat() if window else ""
        after = f"{top}~{shown[-1][1]}~{shown[-1][0]}" if len(pairs) > size else ""
        return [found[pk] for _, pk in shown if pk in found], after


def sort_heads(query: Mapping[str, str], sort: str) -> dict[str, SortHead]:
    """Return the headings of the list; letters of one group have the same actor."""
    columns = [column for column in SORT_COLUMNS if column.name != "actor" or "fingerprint" not in query]
    return heads_of(columns, query, sort)


def _parse(after: str) -> Mapping[str, str] | None:
    if not after:
        return None
    found = _PLACE.fullmatch(after)
    if found is None:
        raise IncorrectLookupParameters(f"after: {after!r:.100} is no place in the list")
    return found.groupdict()


def _time_of(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at
    except ValueError:
        pass
    raise IncorrectLookupParameters(f"after: {text!r:.100} is no time of a letter")
