"""Pages of dead letters: the list with its groups, one letter, and the quarantine; ``act_views`` has the acts."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import dramatiq
from django.contrib import messages
from django.db.models import Count, Q
from django.db.models.functions import Trunc
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_safe

from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Unreadable
from switchyard.conf import declared_yard
from switchyard.console.export import MOST, export_of
from switchyard.console.formatting import counted
from switchyard.console.queue_rights import holds, queue_rights
from switchyard.console.room_view import RoomResponse, gone, require
from switchyard.dead_letters import bulk_moves, queries
from switchyard.dead_letters.act_views import LIST, TRIAGE, VIEW
from switchyard.dead_letters.acts import right_to
from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.dead_letters.presentation import marked, own_frame, seen_at, summary, why_given_up
from switchyard.dead_letters.queries import LetterGroup, first_seen, hex_dump, shown_bytes

DISCARDED = DeadLetter.State.DISCARDED.value
TABS = (("Open", ""), ("Requeued", DeadLetter.State.REQUEUED.value), ("Discarded", DISCARDED), ("All", "all"))
COUNTED = 10_000
REASONS = ("exhausted", "permanent", "poison", "suspected_poison", "time_limit")


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows above its letters, and what a user may do to them."""
    given = request.GET.dict()
    state, fingerprint = given.get("state", ""), given.get("fingerprint", "")
    filter = bulk_moves.of_list(given) or {}
    if state == DISCARDED:
        groups = queries.groups(states=(DISCARDED,), fingerprint=fingerprint)
    elif state in ("", "open"):
        groups = queries.groups(of=bulk_moves.matching(filter)) if filter or not request.GET else []
    else:
        groups = []
    count = bulk_moves.matching(filter).count() if filter else 0
    letters, bugs = queries.open_count(), queries.group_count()
    rights = {action: _may_act(request, action, given) for action in TRIAGE}
    found: dict[str, Any] = {
        "sentence": _sentence(letters, bugs, state),
        "letter_count": letters,
        "group_count": bugs if not filter and state != DISCARDED else len(groups),
        "rows": rows_of(groups),
        "of_discarded": state == DISCARDED,
        "restored_of": "" if (own := _own_queues(request, "discard")) is None else ",".join(sorted(own)),
        "matching": {"count": count} if filter else None,
        "filter_words": [f"{name.replace('_', ' ')} {value}"[:60] for name, value in filter.items()],
        "search": given.get("q", ""),
        "fingerprint": fingerprint,
        "times": {name: given.get(name, "") for name in bulk_moves.TIMES.values()},
        "tabs": list(_tabs(state, letters)),
        "fields": list(_fields(given)),
        "rights": rights,
        "may_choose": any(rights.values()),
        "all": {action: _all(request, action, filter, count) for action in TRIAGE if rights[action]} if filter else {},
    }
    if filter.keys() == {"fingerprint"} and groups:
        newest = queries.listing(fingerprint=fingerprint).first()
        if newest is not None:
            found |= {
                "newest": newest, "lines": marked(newest.traceback), "why": why_given_up(newest),
                "alerts_link": _alerts_of(request, fingerprint), "title": newest.exception,
            }  # fmt: skip
    return found


def _own_queues(request: HttpRequest, action: str) -> frozenset[str] | None:
    """Return the queues to whose letters alone a user may do an act; ``None`` for those of all queues."""
    return queue_rights(request.user).get(right_to(action))


def _may_act(request: HttpRequest, action: str, given: dict[str, str]) -> bool:
    """Return whether a user may do an act to some letters of a list, perhaps to those of his queues alone."""
    may, own = holds(request.user, right_to(action)), _own_queues(request, action)
    return may and (own is None or bulk_moves.listed(given).filter(queue__in=own).exists())


def _all(request: HttpRequest, action: str, filter: dict[str, str], count: int) -> dict[str, Any]:
    """Return the act on all that match, of a user of some queues on those of his queues: its number and address."""
    if (own := _own_queues(request, action)) is not None:
        names = own & {*filter["queue"].split(",")} if "queue" in filter else own
        filter = filter | {"queue": ",".join(sorted(names))}
        count = bulk_moves.matching(filter).count()
    query = urlencode(filter)
    return {
        "count": count,
        "query": query,
        "to": f"{reverse('switchyard-bulk-begin', args=[f'letter.{action}'])}?{query}",
    }


def _tabs(shown: str, open_letters: int) -> Iterable[tuple[str, str, bool, str]]:
    """Yield text, address, whether it is shown, and count; of many letters no more than 10,000 are counted."""
    shown = "" if shown == "open" else shown
    for text, state in TABS:
        count = queries.count_up_to(COUNTED, state="" if state == "all" else state) if state else open_letters
        number = f"{count:,}" if not state or count <= COUNTED else f"{COUNTED:,}+"
        yield text, f"?state={state}" if state else reverse(LIST), state == shown, number


def _sentence(letters: int, bugs: int, state: str) -> str:
    if state not in ("", "open"):
        named = {"all": "Every dead letter that is kept", "requeued": "Requeued dead letters"}
        return named.get(state, f"{state.capitalize()} dead letters"[:40])
    if not letters:
        return "No open dead letters"
    return f"{counted(letters, 'open dead letter')} {'is' if letters == 1 else 'are'} {counted(bugs, 'bug')}"


def _fields(given: dict[str, str]) -> Iterable[tuple[str, str, list[tuple[str, str, bool]]]]:
    queues = [queue.name for queue in declared_yard().queues]
    for name, label, values in (
        ("queue", "Queue", {queue: queue for queue in queues}),
        ("actor", "Actor", {actor: actor for actor in sorted(dramatiq.get_broker().actors)}),
        ("reason", "Reason", {reason: reason.replace("_", " ") for reason in REASONS}),
    ):
        chosen = given.get(name, "")
        choices = [("", "any", not chosen), *((value, text, value == chosen) for value, text in values.items())]
        if chosen and chosen not in values:
            choices.append((chosen, chosen, True))
        yield name, label, choices


def _alerts_of(request: HttpRequest, fingerprint: str) -> str:
    may_view = request.user.has_perm("switchyard_alerts.view_alert")
    return f"{reverse('switchyard-alerts')}?{urlencode({'fingerprint': fingerprint})}" if may_view else ""


STEPS, STEP = 12, timedelta(minutes=10)
BAR_PX, GAP_PX, HIGH_PX = 8, 1, 24


@dataclass(frozen=True, slots=True)
class GroupBar:
    """One bar: letters of ten minutes; ``kind`` is its class in the style sheet without the prefix."""

    x: int
    y: int
    height: int
    kind: str


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One row of the table of groups.

    Args:
        error: First line of the newest letter's error.
        frame: Innermost frame of the project's own code, or "".
        first_at: Of every letter that the cause has had, also of those that are no longer open.
        bars: Open letters of the last two hours, ten minutes each; ``words`` says the same.
    """

    group: LetterGroup
    error: str
    frame: str
    first_at: datetime
    bars: tuple[GroupBar, ...]
    words: str


def rows_of(groups: Sequence[LetterGroup]) -> list[GroupRow]:
    """Return the rows of some groups, in their order."""
    names = [group.fingerprint for group in groups]
    counts, first = _recent(names), first_seen(names)
    samples = DeadLetter.objects.only("error", "traceback").in_bulk([group.sample for group in groups])
    found = []
    for group in groups:
        bars = _bars(counts.get(group.fingerprint, {}))
        recent = sum(counts.get(group.fingerprint, {}).values())
        sample = samples.get(group.sample)
        found.append(
            GroupRow(
                group=group,
                error=sample.error.strip().split("\n", 1)[0] if sample else "",
                frame=own_frame(sample.traceback) if sample else "",
                first_at=min(first.get(group.fingerprint, group.first_at), group.first_at),
                bars=bars,
                words=f"{recent:,} in the last 2 h" if recent else "none in the last 2 h",
            )
        )
    return found


def _recent(fingerprints: list[str]) -> dict[str, Counter[datetime]]:
    """Return for each fingerprint its open letters of the last two hours, by ten minutes."""
    counted: dict[str, Counter[datetime]] = {}
    # The states are named, so that the index of groups is used up to the time.
    rows = (
        DeadLetter.objects.filter(is_open=1, fingerprint__in=fingerprints, state__in=OPEN_STATES, died_at__gte=_start())
        .order_by()
        .annotate(minute=Trunc("died_at", "minute", tzinfo=UTC))
        .values_list("fingerprint", "minute")
        .annotate(letters=Count("id"))
    )
    for fingerprint, minute, letters in rows:
        counted.setdefault(fingerprint, Counter())[_step(minute)] += letters
    return counted


def _bars(counts: Mapping[datetime, int]) -> tuple[GroupBar, ...]:
    steps = [_start() + number * STEP for number in range(STEPS)]
    most = max(counts.values(), default=0)
    bars = []
    for number, step in enumerate(steps):
        letters = counts.get(step, 0)
        height = max(3, round(HIGH_PX * letters / most)) if letters else 1
        kind = "trend" if letters else "trend-none"
        bars.append(GroupBar(number * (BAR_PX + GAP_PX), HIGH_PX - height, height, kind))
    return tuple(bars)


def _start() -> datetime:
    return _step(timezone.now()) - (STEPS - 1) * STEP


def _step(at: datetime) -> datetime:
    return at.replace(minute=at.minute // 10 * 10, second=0, microsecond=0)


# Letters that are counted.
MOST_COUNTED: Final = 10_000
PER_PAGE = 50
AFTER_VAR = "after"
_PLACE: Final = re.compile(r"(?P<at>[^~]{1,40})~(?P<row>[0-9]{1,18})")


class LetterList:
    """List of letters, newest first, whose next page goes on behind the last letter, however many arrive meanwhile.

    ``after_link`` and ``first_link`` lead on and back. ``is_counted`` is false where more than ``MOST_COUNTED`` match.

    Args:
        query: The list's address.

    Raises:
        ValueError: the address has no usable place or filter.
    """

    def __init__(self, query: Mapping[str, str]) -> None:
        letters = bulk_moves.listed(query).order_by("-died_at", "-id")
        count = letters.order_by()[: MOST_COUNTED + 1].count()
        if after := query.get(AFTER_VAR, ""):
            at, pk = _place_of(after)
            letters = letters.filter(Q(died_at__lt=at) | Q(died_at=at, pk__lt=pk), died_at__lte=at)
        found = list(letters[: PER_PAGE + 1])
        self.rows = found[:PER_PAGE]
        kept = {name: value for name, value in query.items() if name != AFTER_VAR}
        self.count = min(count, MOST_COUNTED)
        self.is_counted = count <= MOST_COUNTED
        self.after_link = self.first_link = ""
        if len(found) > PER_PAGE:
            last = self.rows[-1]
            self.after_link = f"?{urlencode({**kept, AFTER_VAR: f'{last.died_at.isoformat()}~{last.pk}'})}"
        if after:
            self.first_link = f"?{urlencode(kept)}"


def _place_of(text: str) -> tuple[datetime, int]:
    """Return the time and the key of the letter behind which a page begins."""
    if found := _PLACE.fullmatch(text):
        with suppress(ValueError, OverflowError):
            at = datetime.fromisoformat(found["at"])
            if at.tzinfo is not None:
                return at.astimezone(UTC), int(found["row"])
    raise ValueError(f"after: {text!r:.100} is not a place in the list; begin with its first page")


@require_safe
def letters(request: HttpRequest) -> HttpResponseBase:
    """Show the groups; with a filter also the letters that match, with a group's fingerprint its newest letter."""
    require(request, VIEW)
    if (file := export_of(request, "dead-letters", lambda: _exported(request.GET.dict()))) is not None:
        return file
    query = request.GET.dict()
    try:
        listed = LetterList(query) if query else None
    except ValueError as error:
        messages.warning(request, str(error))
        return HttpResponseRedirect(reverse(LIST))
    context = {"title": "Dead letters", "listed": listed} | context_of(request)
    return RoomResponse(request, "switchyard_dead_letters/list.html", context)


def _exported(query: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Yield the letters that match, newest first.

    Raises:
        ActRefused: the filter is unusable.
    """
    try:
        rows = bulk_moves.listed(query).order_by("-died_at", "-id")[: MOST + 1]
    except ValueError as error:
        raise ActRefused("export", str(error)) from error
    yield from map(summary, rows)


@require_safe
def letter(request: HttpRequest, pk: int) -> HttpResponseBase:
    require(request, VIEW)
    row = DeadLetter.objects.filter(pk=pk).first()
    if row is None:
        return gone(request, "dead letter", pk, LIST)
    context = {
        "title": row.exception,
        "row": row,
        "open": row.state in OPEN_STATES,
        "restorable": row.state == DeadLetter.State.DISCARDED and bool(row.kept),
        "alike": queries.listing(fingerprint=row.fingerprint).count(),
        "waited_s": (row.died_at - row.enqueued_at).total_seconds(),
        "lines": marked(row.traceback),
        "why": why_given_up(row),
        "payload": json.dumps(row.payload, indent=2, ensure_ascii=False),
        "history": list(reversed(row.history)),
        "rights": {action: holds(request.user, right_to(action), row.queue) for action in TRIAGE},
        "acts_on": row.queue,
    }
    return RoomResponse(request, "switchyard_dead_letters/detail.html", context)


@require_safe
def quarantined(request: HttpRequest) -> HttpResponseBase:
    """Show the messages that could not be decoded."""
    require(request, VIEW)
    away, shown = "", QuarantinePage((), "")
    try:
        shown = page(request.GET.get("after", ""))
    except BrokerError:
        away = "The broker does not answer. Quarantined messages are kept there; reload the page when it is back."
    context = {"title": "Quarantine", "page": shown, "away": away, "is_later": "after" in request.GET}
    return RoomResponse(request, "switchyard_dead_letters/quarantine.html", context)


SHOWN: Final = 20
# 16 lines. The whole of what is kept would be 19 KB of HTML for each.
SHOWN_BYTES: Final = 256
LONGEST_ERROR: Final = 300


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """A quarantined message.

    Args:
        error: Why it is unreadable, cut.
        dump: Its first bytes.
        more_bytes: Bytes of it that are not in ``dump``.
    """

    item: Unreadable
    error: str
    seen_at: datetime
    dump: str
    more_bytes: int


@dataclass(frozen=True, slots=True)
class QuarantinePage:
    """Messages of the queues, in the yard's order, newest first in each.

    Args:
        after: Place at which the next page begins; "" at the end.
    """

    messages: tuple[ShownMessage, ...]
    after: str


def page(after: str = "") -> QuarantinePage:
    """Return a page; an unknown place is the beginning."""
    names = [queue.name for queue in declared_yard().queues]
    name, _, text = after.rpartition("~")
    is_place = name in names and text.isascii() and text.isdecimal() and len(text) < 10
    first, start = (names.index(name), int(text)) if is_place else (0, 0)
    found: list[Unreadable] = []
    places: list[str] = []
    for name in names[first:]:
        items = facilities().transport.unreadable(name, cursor=start, limit=SHOWN + 1 - len(found)).items
        found += items
        places += [f"{name}~{start + number}" for number in range(len(items))]
        if len(found) > SHOWN:
            break
        start = 0
    return QuarantinePage(tuple(map(_shown, found[:SHOWN])), "".join(places[SHOWN:]))


def _shown(item: Unreadable) -> ShownMessage:
    raw = shown_bytes(item)
    error = item.error if len(item.error) <= LONGEST_ERROR else f"{item.error[: LONGEST_ERROR - 1]}…"
    return ShownMessage(item, error, seen_at(item), hex_dump(raw[:SHOWN_BYTES]), max(item.size_bytes - SHOWN_BYTES, 0))
