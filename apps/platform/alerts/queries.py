"""Reads of alerts."""

from __future__ import annotations

from django.db.models import QuerySet

from apps.platform.alerts.models import Alert, Silence
from apps.platform.alerts.silences import in_force, titles


def recent(limit: int = 5) -> list[Alert]:
    """Return the newest alerts by their last occurrence."""
    return list(Alert.objects.all()[:limit])


def open_count() -> int:
    """Return the number of unacknowledged alerts."""
    return Alert.objects.filter(state=Alert.State.OPEN).count()


def open_silences() -> list[tuple[Silence, str]]:
    """Return the silences in force, each with the title of what it silences."""
    found = list(in_force())
    named = titles(found)
    return [
        (silence, named.get(silence.fingerprint, silence.fingerprint) if silence.fingerprint else "Every alert")
        for silence in found
    ]


def title_of(fingerprint: str) -> str:
    """Return the title of the newest alert of a fingerprint, or ""."""
    found = Alert.objects.filter(fingerprint=fingerprint).first() if fingerprint else None
    return found.title if found else ""


def listing(*, states: tuple[str, ...] = (), fingerprint: str = "") -> QuerySet[Alert]:
    """Return alerts, newest first by their last occurrence."""
    rows = Alert.objects.all()
    if states:
        rows = rows.filter(state__in=states)
    return rows.filter(fingerprint=fingerprint) if fingerprint else rows
