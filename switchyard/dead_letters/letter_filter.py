"""Filter of dead letters for bulk acts: the open letters of a group, a queue, an actor, a reason, a time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.dateparse import parse_datetime

from switchyard.dead_letters.models import OPEN_STATES, DeadLetter

COLUMNS = ("fingerprint", "queue", "actor", "reason", "exception", "state")
TIMES = {"died_since": "died_at__gte", "died_until": "died_at__lt"}
# Parameters of the list's address, by the filter's field.
LIST_NAMES = {"q": "search", "died_at__gte": "died_since", "died_at__lt": "died_until"}
LIST_ONLY = ("p", "o", "all", "e", "sort", "after")
# Each is five comparisons; SQLite takes at most 1,000 in one expression.
MOST_WORDS = 50
SEARCHED = ("message_id", "exception", "error", "actor", "fingerprint")


def check(filter: dict[str, Any]) -> dict[str, str]:
    """Return the filter with its empty fields left out.

    Raises:
        ValueError: a field is not known, or has no valid value.
    """
    known = (*COLUMNS, *TIMES, "search")
    for name, value in filter.items():
        if "\0" in str(value):
            raise ValueError(f"{name}: {value!r:.40} has a NUL character, which no letter has")
    given = {name: str(value).strip() for name, value in filter.items() if value not in (None, "")}
    if wrong := next((name for name in given if name not in known), None):
        raise ValueError(f"filter of dead letters: no field {wrong!r}; known are {', '.join(known)}")
    if given.get("state", "new") not in OPEN_STATES:
        raise ValueError(f"state: {given['state']!r} is no state of an open letter; write new or acknowledged")
    for name in TIMES:
        if name in given:
            _moment(name, given[name])
    if len(given.get("search", "").split()) > MOST_WORDS:
        raise ValueError(f"search: more than {MOST_WORDS} words; a part of the error's text is enough")
    return given


def of_list(query: Mapping[str, str]) -> dict[str, str] | None:
    """Return the filter of the list's address; ``None`` where it lists other letters than open ones."""
    given = _given(query)
    if given.get("state") == "open":
        del given["state"]
    try:
        return check(given)
    except ValueError:
        return None


def listed(query: Mapping[str, str]) -> QuerySet[DeadLetter]:
    """Return the letters that the list's address asks for: the open ones, those of a state, or all.

    Raises:
        ValueError: a field of the address is not known, or has no valid value.
    """
    given = _given(query)
    state = given.pop("state", "") or "open"
    rows = DeadLetter.objects.all()
    if state != "all":
        rows = rows.filter(is_open=1) if state == "open" else rows.filter(state=state.replace("\0", ""))
    return _narrowed(rows, check(given))


def matching(filter: dict[str, str]) -> QuerySet[DeadLetter]:
    """Return the open letters that match a checked filter, oldest first."""
    return _narrowed(DeadLetter.objects.filter(is_open=1).order_by("died_at", "id"), filter)


def _given(query: Mapping[str, str]) -> dict[str, str]:
    return {LIST_NAMES.get(name, name): value for name, value in query.items() if name not in LIST_ONLY}


def _narrowed(rows: QuerySet[DeadLetter], filter: dict[str, str]) -> QuerySet[DeadLetter]:
    rows = rows.filter(**{name: filter[name] for name in COLUMNS if name in filter})
    rows = rows.filter(**{field: _moment(name, filter[name]) for name, field in TIMES.items() if name in filter})
    for word in filter.get("search", "").split():
        wanted = Q()
        for column in SEARCHED:
            wanted |= Q(**{f"{column}__icontains": word})
        rows = rows.filter(wanted)
    return rows


def _moment(name: str, text: str) -> datetime:
    try:
        moment = parse_datetime(text)
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)  # as databases compare it: the first and last day have no such time
    except (ValueError, OverflowError):
        pass
    raise ValueError(f"{name}: {text!r:.100} is no time with a zone, such as 2026-11-21T13:00:00Z")
