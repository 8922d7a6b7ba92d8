"""Reads of alerts."""

from __future__ import annotations

from collections.abc import Iterable

from switchyard.alerts.models import Alert, Silence
from switchyard.alerts.resolution import UNRESOLVED
from switchyard.alerts.silences import in_force
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.console.formatting import counted


def recent(limit: int = 5) -> list[Alert]:
    """Return the newest alerts by their last occurrence, with their counts of now."""
    return counted_now(Alert.objects.all()[:limit])


def counted_now(alerts: Iterable[Alert]) -> list[Alert]:
    """Return alerts with the counts of now: a row has that of its last message, which is up to ten minutes older."""
    found = list(alerts)
    unresolved = [alert for alert in found if alert.state in UNRESOLVED]
    try:
        groups = facilities().alerts.counts([alert.fingerprint for alert in unresolved])
    except BrokerError:
        return found
    for alert in unresolved:
        first_at, count = groups.get(alert.fingerprint, (0, 0))
        if datetime_of(first_at) == alert.first_at:
            alert.count = max(alert.count, count)
    return found


def open_count() -> int:
    """Return the number of unacknowledged alerts."""
    return Alert.objects.filter(state=Alert.State.OPEN).count()


def headline(open_count: int) -> str:
    """Return the title of the list of alerts."""
    return counted(open_count, "open alert") if open_count else "No open alerts"


def open_silences() -> list[tuple[Silence, str]]:
    """Return the silences in force, each with the title of what it silences."""
    found = list(in_force())
    named = titles(silence.fingerprint for silence in found)
    return [(each, named.get(each.fingerprint, each.fingerprint) or "Every alert") for each in found]


def titles(fingerprints: Iterable[str]) -> dict[str, str]:
    """Return the title of the newest alert of each fingerprint that has had one."""
    rows = Alert.objects.filter(fingerprint__in=set(fingerprints)).order_by("last_at", "id")
    return dict(rows.values_list("fingerprint", "title"))
