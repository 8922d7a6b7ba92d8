"""Silences in force, quiet hours, marks of alerts that their acts set, and troubles that were told already."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.broker.errors import ActRefused
from switchyard.conf import declared_yard
from switchyard.console.formatting import SPAN, UNITS_MS
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
