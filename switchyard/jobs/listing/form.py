"""Form above the list of jobs: fields, presets, and where a search leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import dramatiq
from django.http import HttpRequest

from switchyard.broker.stores.job_records import STEPS
from switchyard.conf import declared_yard
from switchyard.console.sort_heads import SortColumn, SortHead, heads_of
from switchyard.history.filters import Filter
from switchyard.jobs.listing.unfinished import wanted_of_history

PERIODS: Final = (
    ("", "any time"),
    ("15m", "last 15 min"),
    ("1h", "last hour"),
    ("1d", "last 24 h"),
    ("7d", "last 7 days"),
)
PRESETS: Final = (
    ("Last hour's failures, retried ones too", {"failures": "1", "since": "1h"}),
    ("Running", {"state": "running"}),
    ("Waiting", {"state": "queued"}),
    ("Scheduled", {"state": "scheduled"}),
    ("Waiting for a retry", {"state": "retrying"}),
    ("Given up in the last 24 h", {"state": "dead", "since": "1d"}),
    ("Cancelled or expired", {"state": "cancelled,expired"}),
)
SORT_COLUMNS: Final = (
    SortColumn("end", "Time (UTC)", ("", "end")),
    SortColumn("wait", "Waited", ("-wait", "wait")),
    SortColumn("run", "Ran", ("-run", "run")),
)
SORTED: Final = {
    "end": "The oldest end first",
    "-run": "The longest run first",
    "run": "The shortest run first",
    "-wait": "The longest wait first",
    "wait": "The shortest wait first",
}
# Names in the address that are no filter.
PAGE_NAMES: Final = ("after", "limit", "sort", "q", "id", "shown", "shown_at")


def filter_of(request: HttpRequest) -> Filter:
    """Return the filter in a request's address.

    Raises:
        ValueError: a name or a value is unusable.
    """
    return Filter.from_query(request.GET, ignore=PAGE_NAMES)


def context_of(wanted: Filter, counts: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Return what the form shows for a filter.

    Args:
        counts: Unfinished jobs by state, for the ready filters.
    """
    query = wanted.to_query()
    return {
        "query": query,
        "words": [f"{name} {value}"[:60] for name, value in query.items() if name != "failures"]
        + ["failures, retried ones too"] * wanted.failures,
        "periods": _choices(PERIODS, wanted.since),
        "states": _choices((("", "any"), *((state, state) for state in STEPS)), query.get("state", "")),
        "queues": _choices(
            (("", "any"), *((queue.name, queue.name) for queue in declared_yard().queues)), wanted.queue
        ),
        "actors": sorted(dramatiq.get_broker().actors),
        "presets": [
            (text, f"?{urlencode(preset)}", preset == query, (counts or {}).get(preset.get("state", "")))
            for text, preset in PRESETS
        ],
        "more_open": any(
            query.get(name) for name in ("owner", "parent", "tag", "error", "fingerprint", "release", "until")
        ),
    }


def sort_heads(wanted: Filter, sort: str) -> dict[str, SortHead]:
    """Return the headings by which a list is sorted; none where no job that has ended can match."""
    return {} if wanted_of_history(wanted) is None else heads_of(SORT_COLUMNS, wanted.to_query(), sort)


def searched(text: str) -> Filter:
    """Return the filter for a text of the search box: a queue, an actor, an argument as ``name=value``, or an error."""
    name, equals, value = text.partition("=")
    if equals and name.strip():
        return Filter(argument=(name.strip(), value.strip()))
    if text in {queue.name for queue in declared_yard().queues}:
        return Filter(queue=text)
    if text in dramatiq.get_broker().actors:
        return Filter(actor=text)
    return Filter(error=text)


def _choices(known: Sequence[tuple[str, str]], chosen: str) -> list[tuple[str, str, bool]]:
    """Return value, text and whether it is chosen; a chosen value that is not among the known ones comes last."""
    found = [(value, text, value == chosen) for value, text in known]
    return found if any(is_chosen for _, _, is_chosen in found) else [*found, (chosen, chosen, True)]
