"""Checks of alerts: deliveries that fail, and critical alerts that nobody acknowledged."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from django.db.models import Count, Max, Q
from django.utils import timezone

from switchyard.alerts.models import Alert, Delivery
from switchyard.console.formatting import ago, counted
from switchyard.operations.findings.finding import Act, Finding, FindingGroup

GROUP = FindingGroup("alerts")
LATELY = datetime.timedelta(days=1)


def look() -> Iterator[Finding]:
    """Check the deliveries of the last day and the open critical alerts.

    Raises:
        django.db.DatabaseError: the database does not answer.
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
        # A channel that accepted an alert after its last failure has recovered.
        if not row["given_up"] + row["failing"] or (row["sent_at"] and row["sent_at"] > row["last_failed"]):
            continue
        found += 1
        sent = f"the last delivery was {ago(row['sent_at'])}" if row["sent_at"] else "none was delivered"
        failed = f"{counted(row['given_up'], 'alert')} given up, {row['failing']} to be retried ({row['error']})"
        seen = f"{row['channel']}: {failed}; {sent}"
        cause = "Its server is down or refuses the alert, or its URL in SWITCHYARD_ALERT_URLS is wrong"
        step = "Check SWITCHYARD_ALERT_URLS; until then read the alerts in /admin/switchyard_alerts/alert/"
        yield GROUP.warning("channel", seen, cause, step, row["channel"])
    if not found:
        yield GROUP.ok("no channel fails")
    waiting = Alert.objects.filter(state=Alert.State.OPEN, severity=Alert.Severity.CRITICAL).count()
    if waiting:
        seen = f"{counted(waiting, 'critical alert')} {'is' if waiting == 1 else 'are'} not acknowledged"
        cause, command = "Nobody has acted on them", "`manage.py switchyard alerts acknowledge ID`"
        step = f"Acknowledge them in /admin/switchyard_alerts/alert/ or with {command}"
        then = "Who acknowledges an alert tells the others that somebody works on it; its count goes on."
        act = Act(f"Acknowledge {counted(waiting, 'critical alert')}…", "switchyard-alerts")
        yield GROUP.finding("warning", "open", seen, cause, step, then=then, act=act)
