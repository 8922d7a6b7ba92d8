"""Reads of alerts, and the content of one alert message: text and JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db.models import Model

from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.alerts.silences import UNRESOLVED, in_force
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.conf import switchyard_settings
from switchyard.console.formatting import counted, iso
from switchyard.console.links import runbook_of_alert


def recent() -> list[Alert]:
    """Return the five newest alerts by their last occurrence, with current counts."""
    return counted_now(Alert.objects.all()[:5])


def counted_now(alerts: Iterable[Alert]) -> list[Alert]:
    """Return alerts with current count and last time: a row has those of its last message, up to ten minutes older."""
    found = list(alerts)
    unresolved = [alert for alert in found if alert.state in UNRESOLVED]
    try:
        groups = facilities().alerts.counts([alert.fingerprint for alert in unresolved])
    except BrokerError:
        return found
    for alert in unresolved:
        first_at, last_at, count = groups.get(alert.fingerprint, (0, 0, 0))
        if datetime_of(first_at) == alert.first_at:
            alert.count, alert.last_at = max(alert.count, count), max(alert.last_at, datetime_of(last_at))
    return found


def open_count() -> int:
    return Alert.objects.filter(state=Alert.State.OPEN).count()


def headline() -> str:
    return counted(found, "open alert") if (found := open_count()) else "No open alerts"


def open_silences() -> list[tuple[Silence, str]]:
    """Return the silences in force, each with the title of what it silences."""
    found = list(in_force())
    named = titles(silence.fingerprint for silence in found)
    return [(each, named.get(each.fingerprint, each.fingerprint) or "Every alert") for each in found]


def titles(fingerprints: Iterable[str]) -> dict[str, str]:
    """Return the title of the newest alert of each fingerprint that has had one."""
    rows = Alert.objects.filter(fingerprint__in=set(fingerprints)).order_by("last_at", "id")
    return dict(rows.values_list("fingerprint", "title"))


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert message, with the occurrences since the first and those that earlier messages reported.

    Its id is the same for every attempt to send it, so that receivers can drop repetitions. The alert is not stored
    while the database does not answer.
    """

    id: str
    alert: Alert
    count: int
    reported: int = 0

    @property
    def yard(self) -> str:
        """Host of the yard's web: tells the alerts of two yards apart."""
        return urlsplit(switchyard_settings().public_url).hostname or "switchyard"

    @property
    def cause(self) -> str:
        """Name of the cause, the same in its first message, its digests and its resolution."""
        return f"{self.yard}/{self.alert.fingerprint}"

    @property
    def headline(self) -> str:
        times = "" if self.count == 1 else f" ({self.count:,} times)"
        return f"[{'resolved' if self.alert.resolved_at else self.alert.severity}] {self.alert.title}{times}"

    @property
    def text(self) -> str:
        """The whole message as plain text."""
        alert = self.alert
        lines = [alert.title, ""]
        if alert.resolved_at:
            why = f"Resolved by {alert.resolved_by}" if alert.resolved_by else "Its cause has ended: resolved"
            lines.append(f"{why} {_clock(alert.resolved_at)}.")
        elif self.reported:
            lines.append(f"{self.count - self.reported:,} more, {self.count:,} since {_clock(alert.first_at)}.")
        elif self.count > 1:
            lines.append(f"{self.count:,} times so far.")
        times = (("First", _clock(alert.first_at)), ("Last", _clock(alert.last_at)))
        lines += [
            f"{name}: {value}" for name, value in (("Queue", alert.queue), ("Actor", alert.actor), *times) if value
        ]
        lines += ["", alert.sample, "", f"Steps: {runbook_of_alert(alert.kind)}"]
        if alert.link:
            lines += ["", alert.link]
        return "\n".join(lines)

    def within(self, most: int) -> str:
        """Return the message in at most so many characters, title left out: shortened to the link if need be."""
        text = self.text.partition("\n")[2].strip()
        return text if len(text) <= most else f"{self.alert.link or self.text}"[:most]

    def as_json(self) -> dict[str, object]:
        """Return the body of a webhook. Times are ISO 8601 in UTC."""
        alert = self.alert
        return {
            "id": self.id,
            "type": f"switchyard.alert.{alert.kind}",
            "fingerprint": alert.fingerprint,
            "severity": alert.severity,
            "state": alert.state,
            "title": alert.title,
            "text": alert.sample,
            "queue": alert.queue,
            "actor": alert.actor,
            "count": self.count,
            "new": self.count - self.reported,
            "first_at": alert.first_at.isoformat(timespec="microseconds"),
            "last_at": alert.last_at.isoformat(timespec="microseconds"),
            "link": alert.link,
            "runbook": runbook_of_alert(alert.kind),
        }


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


ALERT = (
    "state", "severity", "kind", "title", "queue", "actor", "count", "first_at", "last_at", "fingerprint", "link",
    "acknowledged_by", "acknowledged_at", "resolved_by", "resolved_at",
)  # fmt: skip
DELIVERY = ("channel", "count", "state", "tries", "sent_at", "error")


def fields_json(row: Model, names: Iterable[str]) -> dict[str, Any]:
    """Return columns of a row as JSON values; times are ISO 8601 in UTC."""
    values = {name: getattr(row, name) for name in names}
    times = {name: value for name, value in values.items() if isinstance(value, datetime)}
    return values | {name: iso(at) for name, at in times.items()}


def alert_json(alert: Alert, deliveries: Sequence[Delivery] | None = None) -> dict[str, Any]:
    """Return an alert as JSON, with deliveries also its sample and its messages."""
    body = {"id": alert.pk} | fields_json(alert, ALERT)
    if deliveries is None:
        return body
    return body | {"sample": alert.sample, "messages": [fields_json(delivery, DELIVERY) for delivery in deliveries]}
