"""Content of the list of dead letters: sentence, tabs, filter, groups, and the newest letter of one group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import dramatiq
from django.http import HttpRequest
from django.urls import reverse

from switchyard.conf import declared_yard
from switchyard.dead_letters import letter_filter, queries
from switchyard.dead_letters.models import DeadLetter
from switchyard.dead_letters.pages.groups import rows_of
from switchyard.dead_letters.pages.tracebacks import marked
from switchyard.dead_letters.presentation import why_given_up

DISCARDED = DeadLetter.State.DISCARDED.value
TABS = (("Open", ""), ("Requeued", DeadLetter.State.REQUEUED.value), ("Discarded", DISCARDED), ("All", "all"))
COUNTED = 10_000
REASONS = ("exhausted", "permanent", "poison", "suspected_poison", "time_limit")
# Actions on the letters that are ticked: right, name, button, whether it needs the broker. Discarding stands last.
CHOSEN = (
    ("requeue", "requeue_chosen", "Requeue chosen…", True),
    ("acknowledge", "acknowledge_chosen", "Acknowledge chosen…", False),
)
CHOSEN_LAST = (("discard", "discard_chosen", "Discard chosen…"),)


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows above its letters."""
    given = request.GET.dict()
    state, fingerprint = given.get("state", ""), given.get("fingerprint", "")
    filter = letter_filter.of_list(given) or {}
    if state == DISCARDED:
        groups = queries.groups(states=(DISCARDED,), fingerprint=fingerprint)
    elif state in ("", "open"):
        groups = queries.groups(of=letter_filter.matching(filter)) if filter or not request.GET else []
    else:
        groups = []
    letters, bugs = queries.open_count(), queries.group_count()
    found = {
        "sentence": _sentence(letters, bugs, state),
        "letter_count": letters,
        "group_count": bugs if not filter and state != DISCARDED else len(groups),
        "rows": rows_of(groups),
        "of_discarded": state == DISCARDED,
        "filter": filter,
        "filter_words": [f"{name.replace('_', ' ')} {value}"[:60] for name, value in filter.items()],
        "search": given.get("q", ""),
        "tabs": list(_tabs(state, letters)),
        "fields": list(_fields(given)),
        "chosen_acts": [(name, text, needs) for act, name, text, needs in CHOSEN if _may(request, act)],
        "chosen_last": [(name, text) for act, name, text in CHOSEN_LAST if _may(request, act)],
        "may_choose": any(_may(request, act) for act, *_ in (*CHOSEN, *CHOSEN_LAST)),
        "all_requeue": _bulk_address("letter.requeue", filter),
        "all_discard": _bulk_address("letter.discard", filter),
    }
    if filter.keys() == {"fingerprint"} and groups:
        newest = queries.listing(fingerprint=fingerprint).first()
        if newest is not None:
            found |= {
                "newest": newest, "lines": marked(newest.traceback), "why": why_given_up(newest),
                "alerts_link": _alerts_of(request, fingerprint), "title": newest.exception,
            }  # fmt: skip
    return found


def _may(request: HttpRequest, act: str) -> bool:
    return request.user.has_perm(f"switchyard_dead_letters.{act}_deadletter")


def _bulk_address(kind: str, filter: dict[str, str]) -> str:
    return f"{reverse('switchyard-bulk-begin', args=[kind])}?{urlencode(filter)}"


_LIST = "switchyard-letters"


def _tabs(shown: str, open_letters: int) -> Iterable[tuple[str, str, bool, str]]:
    """Yield text, address, whether it is shown, and count; of many letters no more than 10,000 are counted."""
    shown = "" if shown == "open" else shown
    for text, state in TABS:
        count = queries.count_up_to(COUNTED, state="" if state == "all" else state) if state else open_letters
        counted = f"{count:,}" if not state or count <= COUNTED else f"{COUNTED:,}+"
        yield text, f"?state={state}" if state else reverse(_LIST), state == shown, counted


def _sentence(letters: int, bugs: int, state: str) -> str:
    if state not in ("", "open"):
        named = {"all": "Every dead letter that is kept", "requeued": "Requeued dead letters"}
        return named.get(state, f"{state.capitalize()} dead letters"[:40])
    if not letters:
        return "No open dead letters"
    verb, plural = ("is", "") if letters == 1 else ("are", "s")
    return f"{letters:,} open dead letter{plural} {verb} {bugs:,} bug{'' if bugs == 1 else 's'}"


def _fields(given: dict[str, str]) -> Iterable[tuple[str, str, list[tuple[str, str, bool]]]]:
    queues = [queue.name for queue in declared_yard().queues]
    for name, label, values in (
        ("queue", "Queue", queues),
        ("actor", "Actor", sorted(dramatiq.get_broker().actors)),
        ("reason", "Reason", REASONS),
    ):
        chosen = given.get(name, "")
        choices = [("", "any", not chosen), *((value, value.replace("_", " "), value == chosen) for value in values)]
        if chosen and chosen not in values:
            choices.append((chosen, chosen, True))
        yield name, label, choices


def _alerts_of(request: HttpRequest, fingerprint: str) -> str:
    if not request.user.has_perm("switchyard_alerts.view_alert"):
        return ""
    address = reverse("switchyard-alerts")
    return f"{address}?{urlencode({'fingerprint': fingerprint})}"
