"""Reads of alerts, silences in force, troubles that were told before, and the content of one alert message."""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction
from django.db.models import Model, Q, QuerySet
from django.utils import timezone

from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.broker.clock import datetime_of
from switchyard.broker.errors import ActRefused, BrokerError
from switchyard.broker.interface import facilities
from switchyard.conf import declared_yard, switchyard_settings
from switchyard.console.formatting import SPAN, UNITS_MS, counted, iso
from switchyard.console.links import runbook_of_alert
from switchyard.middleware.clock_comparison import compared_now

LONGEST = timedelta(days=30)
SPANS = {"1h": "1 hour", "4h": "4 hours", "12h": "12 hours", "1d": "1 day", "3d": "3 days", "7d": "7 days"}


def in_force(fingerprint: str | None = None) -> QuerySet[Silence]:
    """Return the silences that hold now, the first to end first; with a fingerprint those that cover it."""
    found = Silence.objects.filter(until__gt=compared_now(), ended_at__isnull=True)
    return found if fingerprint is None else found.filter(Q(fingerprint="") | Q(fingerprint=fingerprint[:128]))


def end_of(span: str) -> datetime:
    """Return the time after a span such as ``30m`` or ``7d``, at most 30 days; ``ActRefused`` for any other text."""
    matched = SPAN.fullmatch(span.strip())
    if matched is None:
        raise ActRefused("silence", f"{span!r:.40} is not a span of time; write 30m, 2h or 7d")
    length = timedelta(milliseconds=int(matched[1]) * UNITS_MS[matched[2]])
    if length > LONGEST:
        raise ActRefused("silence", f"{span} is over {LONGEST.days} days; mend the cause, or leave its channel out")
    return compared_now() + length


def is_quiet(now: datetime) -> bool:
    """Return whether it is one of the quiet hours, in which only what is critical is sent."""
    hours, clock = declared_yard().quiet_hours, f"{timezone.localtime(now):%H:%M}"
    if hours is None:
        return False
    begins, ends = hours
    return begins <= clock < ends if begins < ends else clock >= begins or clock < ends


UNRESOLVED = (Alert.State.OPEN, Alert.State.ACKNOWLEDGED)


def acknowledge(*pks: int, by: str) -> int:
    """Mark alerts as acknowledged, and send none of them to further people; return how many were open."""
    opened = Alert.objects.filter(pk__in=pks, state=Alert.State.OPEN)
    values = {"state": Alert.State.ACKNOWLEDGED, "acknowledged_by": by[:150], "acknowledged_at": timezone.now()}
    with transaction.atomic():
        later = unsent(*opened.values_list("pk", flat=True)).filter(next_try_at__gt=timezone.now())
        later.update(state=Delivery.State.SILENCED)
        return opened.update(**values)


def unsent(*pks: int) -> QuerySet[Delivery]:
    """Return the messages of alerts that no channel was given yet."""
    return Delivery.objects.filter(state=Delivery.State.PENDING, tries=0, alert__in=pks)


# A host in the text of an error of dead letters: a finding about the same failures names it.
_HOST = re.compile(r"(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+(?::\d+)?|localhost(?::\d+)?")


def sent_as_letters(actor: str, channels: Collection[str]) -> bool:
    """Return whether each of some channels was sent dead letters of an actor, and their alert is unresolved.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    sent = Delivery.objects.filter(channel__in=channels, state=Delivery.State.SENT, alert__state__in=UNRESOLVED)
    sent = sent.filter(alert__kind="dead_letter", alert__actor=actor[:255])
    return bool(channels) and set(channels) == set(sent.values_list("channel", flat=True))


def sent_as_finding(letters: Alert, channel: str) -> bool:
    """Return whether a channel was sent a lasting finding that names the actor of letters and their error or host.

    Raises:
        django.db.DatabaseError: the database does not answer.
    """
    sent = Delivery.objects.filter(channel=channel, state=Delivery.State.SENT, alert__state__in=UNRESOLVED)
    texts = sent.filter(alert__kind="finding").values_list("alert__title", "alert__sample").distinct()
    lines = [line for text in texts for line in "\n".join(text).splitlines() if _names(line, letters.actor)]
    errors = [letters.title.rpartition(": ")[2], *_HOST.findall(letters.sample)]
    return any(_names(line, error) for line in lines for error in errors)


def _names(line: str, name: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", line) is not None


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
