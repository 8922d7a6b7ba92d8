"""List of dead letters with pages by place, in several orders, and counts that are bounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from urllib.parse import urlencode

from django.db.models import Q

from switchyard.console.sort_heads import SortColumn, SortHead, heads_of
from switchyard.dead_letters import letter_filter
from switchyard.dead_letters.models import DeadLetter

# Letters that are counted, and among which a list without an index for its order is sorted.
LOOKED_THROUGH: Final = 10_000
PER_PAGE = 50
AFTER_VAR, SORT_VAR = "after", "sort"
OWN_PARAMS: Final = (AFTER_VAR, SORT_VAR)
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


class LetterList:
    """List of letters whose next page goes on behind the last letter, however many arrive meanwhile.

    ``after_link`` and ``first_link`` lead on and back. ``is_counted`` is false where more than ``LOOKED_THROUGH``
    match; ``sorted_from`` is the time of the oldest letter that a sorted list compared, where there are more.

    Args:
        query: The list's address.

    Raises:
        ValueError: the address has no usable place or filter.
    """

    sorted_from: datetime | None = None

    def __init__(self, query: Mapping[str, str]) -> None:
        sort = query.get(SORT_VAR, "")
        sort = sort if sort in SORTED else ""
        is_up = sort == "died"
        order = ("died_at", "id") if is_up else ("-died_at", "-id")
        self._letters = letter_filter.listed(query).order_by(*order)
        place = _parse(query.get(AFTER_VAR, ""))
        count = self._letters.order_by()[: LOOKED_THROUGH + 1].count()
        if sort in ("", "died"):
            self.rows, after = self._by_time(place, PER_PAGE, is_up=is_up)
        else:
            self.rows, after = self._sorted(sort, place, PER_PAGE)
        kept = {name: value for name, value in query.items() if name not in OWN_PARAMS}
        ordered = kept | ({SORT_VAR: sort} if sort else {})
        self.count = min(count, LOOKED_THROUGH)
        self.is_counted = count <= LOOKED_THROUGH
        self.after_link = f"?{urlencode({**ordered, AFTER_VAR: after})}" if after else ""
        self.first_link = f"?{urlencode(ordered)}" if place else ""
        self.heads = sort_heads(kept, sort)
        self.sorted_words = SORTED[sort]

    def _by_time(self, place: Mapping[str, str] | None, size: int, *, is_up: bool) -> tuple[list[DeadLetter], str]:
        rows = self._letters
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
        rows = self._letters
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
        found = self._letters.in_bulk([pk for _, pk in shown])
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
        raise ValueError(f"after: {after!r:.100} is no place in the list")
    return found.groupdict()


def _time_of(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at
    except ValueError:
        pass
    raise ValueError(f"after: {text!r:.100} is no time of a letter")
