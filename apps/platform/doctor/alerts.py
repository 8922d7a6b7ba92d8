"""Alerts: they are dispatched, and their channels take them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from django.db.models import Count, Max, Q
from django.utils import timezone

from apps.platform.alerts.models import Alert, Delivery
from apps.platform.console.formatting import ago
from apps.platform.doctor.finding import Finding

GROUP = "alerts"
LATELY = datetime.timedelta(days=1)


def look() -> Iterator[Finding]:
    """Ask the database what became of alerts within the last day.

    Raises:
        django.db.DatabaseError: it does not answer.
    """
    lately = Delivery.objects.filter(next_try_at__gte=timezone.now() - LATELY)
    given_up = Q(state=Delivery.State.GIVEN_UP)
    failing = Q(state=Delivery.State.PENDING, tries__gt=0) & ~Q(error="")
    rows = (
        lately.order_by()
        .values("channel")
        .annotate(
            given_up=Count("id", filter=given_up),
            failing=Count("id", filter=failing),
            sent_at=Max("sent_at"),
            last_failed=Max("next_try_at", filter=given_up | failing),
            error=Max("error", filter=given_up | failing),
        )
    )
    found = 0
    for row in rows:
        # One that took a message after its last failure works again.
        if not row["given_up"] + row["failing"] or (row["sent_at"] and row["sent_at"] > row["last_failed"]):
            continue
        found += 1
        sent = f"the last was taken {ago(row['sent_at'])}" if row["sent_at"] else "none was taken"
        failed = f"{row['given_up']} alerts given up, {row['failing']} tried again ({row['error']})"
        seen = f"{row['channel']}: {failed}; {sent}"
        cause = "Its server is away or refuses, or the address in SWITCHYARD_ALERT_URLS is wrong"
        step = "Look at the address; alerts are in /admin/switchyard_alerts/alert/ meanwhile"
        yield Finding(GROUP, "channel", "warning", seen, cause, step, row["channel"])
    if not found:
        yield Finding(GROUP, "channels", "ok", "no channel fails")
    waiting = Alert.objects.filter(state=Alert.State.OPEN, severity=Alert.Severity.CRITICAL).count()
    if waiting:
        seen = f"{waiting:,} critical alert{'s are' if waiting > 1 else ' is'} not acknowledged"
        yield Finding(
            GROUP,
            "open",
            "warning",
            seen,
            "Nobody has acted on them",
            "Acknowledge them in /admin/switchyard_alerts/alert/",
        )
