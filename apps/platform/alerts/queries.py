"""Reads of alerts."""

from __future__ import annotations

from apps.platform.alerts.models import Alert


def recent(limit: int = 5) -> list[Alert]:
    """Return the newest alerts by their last occurrence."""
    return list(Alert.objects.all()[:limit])


def open_count() -> int:
    """Return the number of unacknowledged alerts."""
    return Alert.objects.filter(state=Alert.State.OPEN).count()
