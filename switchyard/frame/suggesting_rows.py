"""Owners, tags and values of arguments that begin with a text, from the indexes of the history.

Each is found by a walk from one distinct value to the next: a value that a million jobs have costs one step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import dramatiq
from django.db.models import QuerySet

from switchyard.console.links import jobs_url
from switchyard.history.models import JobRow, SearchValue
from switchyard.history.search_values import TAG, searched_names

# Of each kind. A database may order texts so that others stand between those with one beginning: they count as steps.
MOST, STEPS = 3, 6
MOST_NAMES = 12
# Stored in place of a longer value.
DIGEST: Final = "sha256:"


class FoundValue(NamedTuple):
    """A value that jobs have, and the list of them."""

    kind: str
    name: str
    address: str


def owners(text: str) -> Iterator[FoundValue]:
    """Yield owners of jobs that have ended."""
    rows = JobRow.objects.filter(owner__isnull=False)
    yield from (FoundValue("owner", name, jobs_url(owner=name)) for name in _beginning_with(rows, "owner", text))


def tags(text: str) -> Iterator[FoundValue]:
    """Yield tags of jobs that have ended."""
    rows = SearchValue.objects.filter(name=TAG)
    yield from (FoundValue("tag", name, jobs_url(tag=name)) for name in _beginning_with(rows, "value", text))


def arguments(text: str) -> Iterator[FoundValue]:
    """Yield arguments that jobs which have ended are found by: ``name=value`` or the beginning of any value."""
    wanted, equals, value = (part.strip() for part in text.partition("="))
    names = sorted({name for actor in dramatiq.get_broker().actors for name in searched_names(actor)})
    for name in ([wanted] if wanted in names else []) if equals else names[:MOST_NAMES]:
        rows = SearchValue.objects.filter(name=name)
        for found in _beginning_with(rows, "value", value if equals else text):
            if not found.startswith(DIGEST):
                yield FoundValue("argument", f"{name}={found}", jobs_url(argument=f"{name}={found}"))


def _beginning_with(rows: QuerySet[Any], column: str, text: str) -> Iterator[str]:
    """Yield distinct values of a column that begin with a text, at most ``MOST``, in the order of the index."""
    found, compared, last = 0, "gte", text
    for _ in range(STEPS):
        following = (
            rows.filter(**{f"{column}__{compared}": last}).order_by(column).values_list(column, flat=True).first()
        )
        if following is None or found == MOST:
            return
        if following.startswith(text):
            found += 1
            yield following
        elif following.casefold() > f"{text.casefold()}\U0010ffff":
            return
        compared, last = "gt", following
