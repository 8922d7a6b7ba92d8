"""Ends of alerts: by a person, by the triage of dead letters, or with their cause; and the messages about it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from switchyard.alerts.channels import IncidentChannel, channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.silences import UNRESOLVED, unsent
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities

# A dead letter's row may follow its alert by one reconciliation.
SETTLED_AFTER = timedelta(seconds=90)
FINGERPRINTS_AT_ONCE = 500


def resolve(pk: int, *, by: str) -> bool:
    """Resolve an alert by hand; return ``False`` if it was before."""
    rows = Alert.objects.filter(pk=pk)
    if ended := _end(rows, by=by):
        with contextlib.suppress(BrokerError):  # the next occurrence waits for the end of the window then
            facilities().alerts.end(rows.get().fingerprint, now_ms())
    return ended


def resolve_triaged(still_open: Callable[[Collection[str]], Collection[str]]) -> int:
    """Resolve the alerts of groups without an open dead letter, ``still_open``; return their count."""
    settled, resolved = timezone.now() - SETTLED_AFTER, 0
    rows = Alert.objects.filter(kind="dead_letter", last_at__lt=settled)
    unresolved = rows.filter(state__in=UNRESOLVED).order_by("fingerprint")
    known = list(unresolved.values_list("fingerprint", flat=True).distinct())
    for start in range(0, len(known), FINGERPRINTS_AT_ONCE):
        asked = known[start : start + FINGERPRINTS_AT_ONCE]
        ended = unresolved.filter(fingerprint__in=set(asked) - set(still_open(asked)))
        for pk, fingerprint in list(ended.values_list("pk", "fingerprint")):
            resolved += _end(rows.filter(pk=pk))
            # A letter that comes now is news, and does not wait for the end of the window.
            facilities().alerts.end(fingerprint, int(settled.timestamp() * 1_000))
    return resolved


def resolve_gone(kind: str, lasting: Collection[str]) -> None:
    """Resolve a kind's alerts whose cause is gone, and notify every channel that had been notified of them.

    The group goes first: an alert raised after the message of the resolution must not count as part of what ended.
    """
    for alert in Alert.objects.filter(kind=kind, state__in=UNRESOLVED).exclude(fingerprint__in=lasting):
        facilities().alerts.forget(alert.fingerprint)
        _end(Alert.objects.filter(pk=alert.pk), tell_all=True)


def _end(row: QuerySet[Alert], *, by: str = "", tell_all: bool = False) -> bool:
    """Resolve an alert with the messages about it; return ``False`` if it was resolved, or has changed.

    What people did themselves is told only where an incident would stay open.
    """
    with transaction.atomic():
        now = timezone.now()
        values = {"state": Alert.State.RESOLVED, "resolved_by": by[:150], "resolved_at": now}
        if not row.filter(state__in=UNRESOLVED).update(**values):
            return False
        alert = row.get()
        unsent(alert.pk).update(state=Delivery.State.SILENCED)
        told = set(alert.deliveries.filter(state=Delivery.State.SENT).values_list("channel", flat=True))
        if not alert.deliveries.exists():  # sent while the database was away
            told = set(channels())
        if not tell_all:
            told &= {name for name, channel in channels().items() if isinstance(channel, IncidentChannel)}
        Delivery.objects.bulk_create(
            Delivery(alert=alert, channel=name, reported=alert.count, count=alert.count, next_try_at=now)
            for name in told
        )
    return True
