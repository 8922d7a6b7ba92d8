"""Alerts for tests."""

from typing import Any

from django.utils import timezone

from switchyard.alerts.models import Alert


def make_alert(**values: Any) -> Alert:
    """Write an open alert of a dead letter, raised once, now."""
    now = timezone.now()
    given = {
        "fingerprint": f"made-{Alert.objects.count()}", "kind": "dead_letter", "title": "made", "severity": "critical",
        "sample": "x", "count": 1, "first_at": now, "last_at": now,
    }  # fmt: skip
    return Alert.objects.create(**given | values)
