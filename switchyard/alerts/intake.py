"""Intake of alert groups from the broker: an alert row, and a delivery for each channel; and the ends of alerts.

An alert ends by a person, by the triage of dead letters, or with its cause.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from switchyard.alerts.channels import IncidentChannel, channels
from switchyard.alerts.models import Alert, Delivery
from switchyard.alerts.notice import UNRESOLVED, Notice, in_force, unsent
from switchyard.broker import clock
from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.errors import BrokerError
from switchyard.broker.interface import facilities
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroup
from switchyard.conf import declared_yard
from switchyard.console.links import absolute, letters_url, page_url
from switchyard.database import storable

LONGEST_SAMPLE = 4_000
CRITICAL_KINDS = frozenset({"dead_letter", "broker", "finding"})


def write_alert(group: AlertGroup, channels: Iterable[str]) -> AlertGroup:
    """Write a claimed group as an alert with one delivery due for each channel. Safe to repeat.

    While the group is silenced, its deliveries are written as such, and later messages report what came after them.
    An alert that was resolved is open again.

    Returns:
        The group with the count that its deliveries report, to be settled. After a crash this may be less than the
        group's count: deliveries that were already sent keep theirs.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    now, names = clock.utc_now(), list(channels)
    with transaction.atomic():
        alert, created = Alert.objects.select_for_update().get_or_create(
            fingerprint=group.fingerprint[:128], first_at=datetime_of(group.first_at), defaults=_columns(group)
        )
        if not created:
            alert.count, alert.last_at = max(alert.count, group.count), datetime_of(group.last_at)
            created = _reopen(alert)
            alert.save()
        reported = group.count
        silenced = in_force(alert.fingerprint).exists()
        state = Delivery.State.SILENCED if silenced else Delivery.State.PENDING
        wanted = [(name, now) for name in chosen(group.sample, names)]
        for channel, at in wanted + (further(group.sample, names, now) if created else []):
            # One that still waits reports what came since as well.
            waiting = Delivery.objects.select_for_update().filter(alert=alert, channel=channel, tries=0)
            delivery = waiting.filter(state=Delivery.State.PENDING).first()
            if delivery is None:
                delivery, _ = Delivery.objects.select_for_update().get_or_create(
                    alert=alert,
                    channel=channel,
                    reported=group.sent_count,
                    defaults={"count": group.count, "next_try_at": at, "state": state},
                )
            else:
                delivery.count = group.count
                delivery.save(update_fields=("count",))
            reported = min(reported, delivery.count)
    return msgspec.structs.replace(group, count=reported)


def worsen(fact: AlertFact) -> None:
    """Make the unresolved alert of a cause critical; what waited for the end of the quiet hours is sent then.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    rows = Alert.objects.filter(kind=fact.kind, fingerprint=fact.fingerprint[:128], state__in=UNRESOLVED)
    title, sample = storable(fact.title)[:300], storable(fact.detail)[:LONGEST_SAMPLE]
    rows.filter(severity=Alert.Severity.WARNING).update(severity=Alert.Severity.CRITICAL, title=title, sample=sample)


def chosen(fact: AlertFact, names: Collection[str]) -> list[str]:
    """Return the channels that a rule names for an alert; all where it names none that there is."""
    rule = declared_yard().alert_rule(fact.name.partition(":")[0])
    return [name for name in names if rule is not None and name in rule.channels] or list(names)


def further(fact: AlertFact, names: Collection[str], now: datetime) -> list[tuple[str, datetime]]:
    """Return the channels to which an alert goes unless it is acknowledged by then, each with that time."""
    rule = declared_yard().alert_rule(fact.name.partition(":")[0])
    if rule is None or rule.escalate_after_s is None:
        return []
    at, told = now + timedelta(seconds=rule.escalate_after_s), chosen(fact, names)
    return [(name, at) for name in names if name in rule.escalate_to and name not in told]


def _reopen(alert: Alert) -> bool:
    """Open an alert that was resolved before it last occurred; return whether it was."""
    if alert.resolved_at is None or alert.last_at <= alert.resolved_at:
        return False
    alert.deliveries.filter(reported=F("count")).delete()  # of its resolution: those of occurrences report fewer
    alert.state, alert.acknowledged_by, alert.acknowledged_at = Alert.State.OPEN, "", None
    alert.resolved_by, alert.resolved_at = "", None
    return True


def notice_of(delivery: Delivery) -> Notice:
    return Notice(f"{delivery.alert.pk}-{delivery.reported}", delivery.alert, delivery.count, delivery.reported)


def notice_of_group(group: AlertGroup) -> Notice:
    """Return the message of a group that has no rows because the database does not answer."""
    alert = Alert(fingerprint=group.fingerprint, first_at=datetime_of(group.first_at), **_columns(group))
    return Notice(f"{group.fingerprint}-{group.first_at}-{group.sent_count}", alert, group.count, group.sent_count)


def _columns(group: AlertGroup) -> dict[str, Any]:
    fact = group.sample
    is_letter = fact.kind == "dead_letter"
    page = letters_url(fingerprint=group.fingerprint) if is_letter else page_url("switchyard-operations")
    usual = Alert.Severity.CRITICAL if fact.kind in CRITICAL_KINDS else Alert.Severity.WARNING
    return {
        "kind": fact.kind[:64],
        "title": storable(fact.title)[:300],
        "severity": fact.severity if fact.severity in Alert.Severity.values else usual.value,
        "sample": storable(fact.detail)[:LONGEST_SAMPLE],
        "queue": fact.queue[:64],
        "actor": fact.actor[:255],
        "link": absolute(page)[:500] if page else "",
        "count": group.count,
        "last_at": datetime_of(group.last_at),
    }


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
