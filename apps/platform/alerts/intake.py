"""Takes alert groups over from the broker into rows, one message due for each channel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from django.db import transaction
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.http import urlencode

from apps.platform.alerts.models import Alert, Delivery
from apps.platform.alerts.notice import Notice
from apps.platform.conf import switchyard_settings
from apps.platform.database_text import storable
from broker.clock import datetime_of
from broker.stores.alert_groups import AlertGroup

LONGEST_SAMPLE = 4_000
CRITICAL_KINDS = frozenset({"dead_letter", "pool_down", "broker"})


def take_over(group: AlertGroup, channels: Iterable[str]) -> AlertGroup:
    """Write a claimed group as an alert with one message due for each channel; safe to repeat.

    Returns:
        The group with the count that its messages tell of, to be settled: a repetition after a crash finds messages
        that may have left with a smaller count.

    Raises:
        django.db.DatabaseError: nothing was written.
    """
    now = timezone.now()
    with transaction.atomic():
        alert, created = Alert.objects.select_for_update().get_or_create(
            fingerprint=group.fingerprint[:128], first_at=datetime_of(group.first_at), defaults=_columns(group)
        )
        if not created:
            alert.count, alert.last_at = max(alert.count, group.count), datetime_of(group.last_at)
            alert.save(update_fields=("count", "last_at"))
        told = group.count
        for channel in channels:
            delivery, made = Delivery.objects.select_for_update().get_or_create(
                alert=alert,
                channel=channel,
                told=group.sent_count,
                defaults={"count": group.count, "next_try_at": now},
            )
            if not made and delivery.state == Delivery.State.PENDING and delivery.tries == 0:
                delivery.count = group.count
                delivery.save(update_fields=("count",))
            told = min(told, delivery.count)
    return replace(group, count=told)


def notice(delivery: Delivery) -> Notice:
    """Return what a row's channel is told."""
    alert = delivery.alert
    return Notice(
        id=f"{alert.pk}-{delivery.told}",
        fingerprint=alert.fingerprint,
        kind=alert.kind,
        severity=alert.severity,
        title=alert.title,
        sample=alert.sample,
        queue=alert.queue,
        actor=alert.actor,
        count=delivery.count,
        told=delivery.told,
        first_at=alert.first_at,
        last_at=alert.last_at,
        link=alert.link,
    )


def notice_without_row(group: AlertGroup) -> Notice:
    """Return what channels are told of a group while the database takes no rows."""
    columns = _columns(group)
    return Notice(
        id=f"{group.fingerprint}-{group.first_at}-{group.sent_count}",
        fingerprint=group.fingerprint,
        kind=group.sample.kind,
        severity=columns["severity"],
        title=columns["title"],
        sample=columns["sample"],
        queue=group.sample.queue,
        actor=group.sample.actor,
        count=group.count,
        told=group.sent_count,
        first_at=datetime_of(group.first_at),
        last_at=datetime_of(group.last_at),
        link=columns["link"],
    )


def _columns(group: AlertGroup) -> dict[str, Any]:
    fact = group.sample
    severity = Alert.Severity.CRITICAL if fact.kind in CRITICAL_KINDS else Alert.Severity.WARNING
    return {
        "kind": fact.kind[:64],
        "title": storable(fact.title)[:300],
        "severity": severity.value,
        "sample": storable(fact.detail)[:LONGEST_SAMPLE],
        "queue": fact.queue[:64],
        "actor": fact.actor[:255],
        "link": _link(group),
        "count": group.count,
        "last_at": datetime_of(group.last_at),
    }


def _link(group: AlertGroup) -> str:
    try:
        if group.sample.kind == "dead_letter":
            query = urlencode({"fingerprint": group.fingerprint})
            page = f"{reverse('admin:switchyard_dead_letters_deadletter_changelist')}?{query}"
        else:
            page = reverse("switchyard-operations")
    except NoReverseMatch:
        return ""
    return f"{switchyard_settings().public_url}{page}"[:500]
