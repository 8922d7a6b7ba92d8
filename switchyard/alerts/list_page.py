"""Content of the list of alerts: the unresolved ones, the silences in force, and the channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Paginator
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone

from switchyard.alerts import queries
from switchyard.alerts.bulk_acknowledge import COLUMNS, link_of_list
from switchyard.alerts.channels import channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.resolution import UNRESOLVED
from switchyard.conf import switchyard_settings
from switchyard.setting_values import InvalidSetting

MOST_CARDS = 20
MOST_ENDED = 10
PER_PAGE, MOST_WORDS = 50, 50
SEARCHED = ("title", "fingerprint", "actor", "sample")
RESOLVED_FOR = timedelta(days=1)
TABS = (("Now", ""), ("Acknowledged", "acknowledged"), ("Resolved", "resolved"))


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One channel with its last message; ``at`` is ``None`` where none was sent."""

    name: str
    at: datetime | None
    error: str
    waiting: int


@dataclass(frozen=True, slots=True)
class RuleRow:
    """Cause that raises an alert, and how many of its alerts are unresolved."""

    name: str
    when: str
    of: str
    kinds: tuple[str, ...]
    unresolved: int = 0


RULES = (
    RuleRow("Dead letter", "any; one message for each cause in 10 min", "every queue", ("dead_letter",)),
    RuleRow("Broker", "an error of its server, or memory nearly full; until it is gone", "the broker", ("broker",)),
)


def asks(request: HttpRequest) -> bool:
    """Return whether the address asks for a list of alerts, and not only for those of now."""
    return bool(request.GET)


def context_of(request: HttpRequest) -> dict[str, Any]:
    """Return what the page shows, with the list that a filter asks for."""
    state = request.GET.get("state__exact", request.GET.get("state", ""))
    now = timezone.now()
    silences = queries.open_silences()
    unresolved = Alert.objects.filter(state__in=UNRESOLVED)
    silenced = {silence.fingerprint for silence, _ in silences}
    # The open ones first; "open" also sorts after "acknowledged".
    newest = unresolved.prefetch_related("deliveries").order_by("-state", "-last_at", "-id")
    cards = queries.counted_now(newest[:MOST_CARDS])
    resolved = Alert.objects.filter(state=Alert.State.RESOLVED)
    return {
        "silences": silences,
        "headline": queries.headline(queries.open_count()),
        "unresolved_count": unresolved.count(),
        "cards": [(card, _sent(card), bool(silenced & {"", card.fingerprint})) for card in cards],
        "ended_count": resolved.filter(resolved_at__gte=now - RESOLVED_FOR).count(),
        "ended": list(resolved.order_by("-resolved_at", "-id")[:MOST_ENDED]),
        "channels": channel_rows(),
        "rules": rule_rows(unresolved),
        "tabs": [
            *((text, f"?state__exact={value}" if value else "?", value == state) for text, value in TABS),
            ("All", "?all=", state == "" and asks(request)),
        ],
        "search": request.GET.get("q", ""),
        **(page_of(request.GET.dict()) if asks(request) else {}),
    }


def matching(query: Mapping[str, str]) -> QuerySet[Alert]:
    """Return the alerts that the list's address asks for, the newest first."""
    given = {name.removesuffix("__exact"): value.replace("\0", "") for name, value in query.items()}
    rows = Alert.objects.filter(**{name: given[name] for name in ("state", *COLUMNS) if given.get(name)})
    for word in given.get("q", "").split()[:MOST_WORDS]:
        wanted = Q()
        for column in SEARCHED:
            wanted |= Q(**{f"{column}__icontains": word})
        rows = rows.filter(wanted)
    return rows.order_by("-last_at", "-id")


def page_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Return a page of the alerts that match, with the addresses of the pages before and after it."""
    found = Paginator(matching(query), PER_PAGE).get_page(query.get("p", "1"))
    count, link = link_of_list(query)
    kept = {name: value for name, value in query.items() if name != "p"}

    def address(number: int) -> str:
        return f"?{urlencode({**kept, 'p': number})}"

    return {
        "found": found,
        "newer_link": address(found.number - 1) if found.has_previous() else "",
        "older_link": address(found.number + 1) if found.has_next() else "",
        "bulk_count": count,
        "bulk_link": link,
    }


def rule_rows(unresolved: QuerySet[Alert]) -> list[RuleRow]:
    """Return what raises alerts here; alerts of any other kind are counted in a row of their own."""
    counted = dict(unresolved.order_by().values_list("kind").annotate(count=Count("id")))
    found = [replace(rule, unresolved=sum(counted.pop(kind, 0) for kind in rule.kinds)) for rule in RULES]
    others = sum(counted.values())
    return [*found, RuleRow("Other", "raised by other code", "", (), others)] if others else found


def channel_rows() -> list[ChannelRow]:
    """Return the channels of the settings, each with its last message."""
    try:
        declared = channels(switchyard_settings().alert_urls)
    except InvalidSetting as error:
        return [ChannelRow(name="SWITCHYARD_ALERT_URLS", at=None, error=str(error), waiting=0)]
    found = []
    for channel in declared:
        messages = Delivery.objects.filter(channel=channel.name)
        last = messages.filter(state=Delivery.State.SENT).order_by("-sent_at").first()
        failed = messages.exclude(error="").order_by("-id").first()
        failing = failed is not None and (last is None or failed.pk > last.pk)
        found.append(
            ChannelRow(
                name=channel.name,
                at=last.sent_at if last else None,
                error=failed.error if failed is not None and failing else "",
                waiting=messages.filter(state=Delivery.State.PENDING).count(),
            )
        )
    return found


def _sent(alert: Alert) -> list[tuple[str, Delivery]]:
    """Return the newest message of each channel."""
    return sorted({delivery.channel: delivery for delivery in alert.deliveries.all()}.items())
