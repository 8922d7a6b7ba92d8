"""Pages of dead letters: the list with its groups, one letter and the acts on it, and the quarantine.

``bulk_moves`` has the acts on several. Nothing is changed on GET.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

import dramatiq
from django.contrib import messages
from django.db.models import Count
from django.db.models.functions import Trunc
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from switchyard.audit.services import Who
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.shapes import Unreadable
from switchyard.conf import declared_yard
from switchyard.console.export import MOST, export_of
from switchyard.console.formatting import choices, counted, cut
from switchyard.console.queue_rights import holds, queue_rights
from switchyard.console.room_view import RoomResponse, gone, not_answered, require
from switchyard.dead_letters import acts, bulk_moves, queries
from switchyard.dead_letters.acts import right_of
from switchyard.dead_letters.models import OPEN_STATES, DeadLetter
from switchyard.dead_letters.presentation import marked, own_frame, summary, why_given_up
from switchyard.dead_letters.queries import LetterGroup, behind, first_seen, hex_dump, letter_of_key, shown_bytes

PAST = {"acknowledge": "Acknowledged", "requeue": "Requeued", "discard": "Discarded", "restore": "Restored"}
TRIAGE = ("acknowledge", "requeue", "discard")
LIST, VIEW = "switchyard-letters", "switchyard_dead_letters.view_deadletter"
DISCARDED = DeadLetter.State.DISCARDED.value
TABS = (("Open", ""), ("Requeued", DeadLetter.State.REQUEUED.value), ("Discarded", DISCARDED), ("All", "all"))
MOST_COUNTED = 10_000
REASONS = ("exhausted", "permanent", "poison", "suspected_poison", "time_limit")


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows above its letters, and what a user may do to them."""
    given = request.GET.dict()
    state, fingerprint = given.get("state", ""), given.get("fingerprint", "")
    filter = bulk_moves.of_list(given) or {}
    if state == DISCARDED:
        groups = queries.groups(of=queries.listing(states=(DISCARDED,), fingerprint=fingerprint))
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
            may_view = request.user.has_perm("switchyard_alerts.view_alert")
            alerts = f"{reverse('switchyard-alerts')}?{urlencode({'fingerprint': fingerprint})}" if may_view else ""
            found |= {
                "newest": newest, "lines": marked(newest.traceback), "why": why_given_up(newest),
                "alerts_link": alerts, "title": newest.exception,
            }  # fmt: skip
    return found


def _own_queues(request: HttpRequest, action: str) -> frozenset[str] | None:
    """Return the queues to whose letters alone a user may do an act; ``None`` for those of all queues."""
    return queue_rights(request.user).get(right_of(action))


def _may_act(request: HttpRequest, action: str, given: dict[str, str]) -> bool:
    """Return whether a user may do an act to some letters of a list, perhaps to those of his queues alone."""
    may, own = holds(request.user, right_of(action)), _own_queues(request, action)
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
        count = open_letters
        if state:
            rows = DeadLetter.objects.all() if state == "all" else DeadLetter.objects.filter(state=state)
            count = rows.order_by()[: MOST_COUNTED + 1].count()
        number = f"{count:,}" if not state or count <= MOST_COUNTED else f"{MOST_COUNTED:,}+"
        yield text, f"?state={state}" if state else reverse(LIST), state == shown, number


def _sentence(letters: int, bugs: int, state: str) -> str:
    if state not in ("", "open"):
        named = {"all": "Every dead letter that is kept", "requeued": "Requeued dead letters"}
        return named.get(state, f"{state.capitalize()} dead letters"[:40])
    if not letters:
        return "No open dead letters"
    return f"{counted(letters, 'open dead letter')} {'is' if letters == 1 else 'are'} {counted(bugs, 'bug')}"


def _fields(given: dict[str, str]) -> Iterable[tuple[str, str, list[tuple[str, str, bool]]]]:
    for name, label, values in (
        ("queue", "Queue", [(queue.name, queue.name) for queue in declared_yard().queues]),
        ("actor", "Actor", [(actor, actor) for actor in sorted(dramatiq.get_broker().actors)]),
        ("reason", "Reason", [(reason, reason.replace("_", " ")) for reason in REASONS]),
    ):
        yield name, label, choices((("", "any"), *values), given.get(name, ""))


STEPS, STEP = 12, timedelta(minutes=10)
BAR_PX, GAP_PX, HIGH_PX = 8, 1, 24


def rows_of(groups: Sequence[LetterGroup]) -> list[dict[str, Any]]:
    """Return the rows of the table of groups.

    ``error`` is the first line of the newest letter's, ``frame`` its innermost one of the project's own code, or "".
    ``first_at`` is that of every letter that the cause has had, also of those that are no longer open. ``bars`` are the
    open letters of the last two hours, ten minutes each; ``words`` says the same.
    """
    names = [group.fingerprint for group in groups]
    counts, first = _recent(names), first_seen(names)
    samples = DeadLetter.objects.only("error", "traceback").in_bulk([group.sample for group in groups])
    found = []
    for group in groups:
        recent, sample = counts[group.fingerprint], samples.get(group.sample)
        row = {
            "group": group,
            "error": sample.error.strip().split("\n", 1)[0] if sample else "",
            "frame": own_frame(sample.traceback) if sample else "",
            "first_at": min(first.get(group.fingerprint, group.first_at), group.first_at),
            "bars": _bars(recent),
            "words": f"{sum(recent):,} in the last 2 h" if any(recent) else "none in the last 2 h",
        }
        found.append(row)
    return found


def _recent(fingerprints: list[str]) -> defaultdict[str, list[int]]:
    """Return for each fingerprint its open letters of the last two hours, by ten minutes."""
    now = timezone.now()
    start = now.replace(minute=now.minute // 10 * 10, second=0, microsecond=0) - (STEPS - 1) * STEP
    counts = defaultdict[str, list[int]](lambda: [0] * STEPS)
    # The states are named, so that the index of groups is used up to the time.
    rows = (
        DeadLetter.objects.filter(is_open=1, fingerprint__in=fingerprints, state__in=OPEN_STATES, died_at__gte=start)
        .order_by()
        .annotate(minute=Trunc("died_at", "minute", tzinfo=UTC))
        .values_list("fingerprint", "minute")
        .annotate(letters=Count("id"))
    )
    for fingerprint, minute, letters in rows:
        counts[fingerprint][min((minute - start) // STEP, STEPS - 1)] += letters
    return counts


def _bars(counts: Sequence[int]) -> list[dict[str, Any]]:
    most, bars = max(counts), []
    for number, letters in enumerate(counts):
        height = max(3, round(HIGH_PX * letters / most)) if letters else 1
        kind = "trend" if letters else "trend-none"
        bars.append({"x": number * (BAR_PX + GAP_PX), "y": HIGH_PX - height, "height": height, "kind": kind})
    return bars


PER_PAGE = 50
_PLACE: Final = re.compile(r"(?P<at>[^~]{1,40})~(?P<row>[0-9]{1,18})")


def _page_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the letters of the list's address, newest first, with the links on and back.

    The next page goes on behind the last letter, however many arrive meanwhile. ``is_counted`` is false where more than
    ``MOST_COUNTED`` match.

    Raises:
        ValueError: the address has no usable place or filter.
    """
    letters = bulk_moves.listed(query)
    count = letters.order_by()[: MOST_COUNTED + 1].count()
    if after := query.get("after", ""):
        letters = behind(letters, *_place_of(after), "lt")
    found = list(letters[: PER_PAGE + 1])
    rows, kept = found[:PER_PAGE], {name: value for name, value in query.items() if name != "after"}
    on = {**kept, "after": f"{rows[-1].died_at.isoformat()}~{rows[-1].pk}"} if len(found) > PER_PAGE else {}
    return {
        "rows": rows,
        "count": min(count, MOST_COUNTED),
        "is_counted": count <= MOST_COUNTED,
        "after_link": f"?{urlencode(on)}" if on else "",
        "first_link": f"?{urlencode(kept)}" if after else "",
    }


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
    query = request.GET.dict()
    file = export_of(request, "dead-letters", lambda: map(summary, bulk_moves.listed(query)[: MOST + 1]))
    if file is not None:
        return file
    try:
        listed = _page_of(query) if query else None
    except ValueError as error:
        messages.warning(request, str(error))
        return HttpResponseRedirect(reverse(LIST))
    context = {"title": "Dead letters", "listed": listed} | context_of(request)
    return RoomResponse(request, "switchyard_dead_letters/list.html", context)


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
        "rights": {action: holds(request.user, right_of(action), row.queue) for action in TRIAGE},
        "acts_on": row.queue,
    }
    return RoomResponse(request, "switchyard_dead_letters/detail.html", context)


def one(request: HttpRequest, pk: int, action: Any) -> HttpResponseBase:
    """Apply an action to one letter; ask before discarding."""
    _check(request, action)
    row, page = letter_of_key(pk), reverse("switchyard-letter", args=[pk])
    reason = request.POST.get("reason", "").strip()
    if action == "discard" and not (request.method == "POST" and reason):
        wrong = "Nothing was done: enter a reason." if request.method == "POST" else ""
        context = {"title": "Discard 1 dead letter?", "row": row, "back": page, "refused": wrong}
        return RoomResponse(request, "switchyard_dead_letters/discard.html", context)
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    outcome = acts.apply(action, [row], who=Who.of_request(request), reason=reason)
    if outcome.stopped:
        fact = f"{outcome.stopped} Its page shows within a minute whether it was moved."
        return not_answered(request, fact, back=page)
    for sentence in outcome.skipped:
        messages.warning(request, sentence)
    if outcome.done:
        messages.success(request, f"{PAST[action]} 1 dead letter.")
    return HttpResponseRedirect(page)


@require_POST
def note(request: HttpRequest, pk: int) -> HttpResponseBase:
    """Append a note to a letter's history."""
    _check(request, "acknowledge")
    done, sentence = acts.note(letter_of_key(pk), who=Who.of_request(request), text=request.POST.get("text", ""))
    (messages.success if done else messages.warning)(request, sentence)
    return HttpResponseRedirect(reverse("switchyard-letter", args=[pk]))


def _check(request: HttpRequest, action: str) -> None:
    if action not in PAST:
        raise Http404(f"There is no action {action}.")
    require(request, acts.right_of(action), VIEW)


@require_safe
def quarantined(request: HttpRequest) -> HttpResponseBase:
    """Show the messages that could not be decoded."""
    require(request, VIEW)
    away, shown = "", {}
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


def page(after: str = "") -> dict[str, Any]:
    """Return a page of quarantined messages, in the yard's order of queues, newest first in each.

    An unknown place is the beginning; ``after`` of the answer is where the next page begins.
    """
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
    return {"messages": [_shown(item) for item in found[:SHOWN]], "after": "".join(places[SHOWN:])}


def _shown(item: Unreadable) -> dict[str, Any]:
    return {
        "item": item,
        "error": cut(item.error, LONGEST_ERROR),
        "seen_at": datetime_of(item.seen_at),
        "dump": hex_dump(shown_bytes(item)[:SHOWN_BYTES]),
        "more_bytes": max(item.size_bytes - SHOWN_BYTES, 0),
    }
