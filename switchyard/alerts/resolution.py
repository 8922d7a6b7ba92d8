"""Acknowledgement and resolution of alerts: by a person, or by the maintenance once their cause has ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta

from django.utils import timezone

from switchyard.alerts.models import Alert

UNRESOLVED = (Alert.State.OPEN, Alert.State.ACKNOWLEDGED)
# A dead letter's row may follow its alert by one reconciliation.
SETTLED_AFTER = timedelta(seconds=90)
FINGERPRINTS_AT_ONCE = 500


def acknowledge(pk: int, *, by: str) -> bool:
    """Mark an alert as acknowledged; return ``False`` if it was before, or is resolved."""
    opened = Alert.objects.filter(pk=pk, state=Alert.State.OPEN)
    values = {"state": Alert.State.ACKNOWLEDGED, "acknowledged_by": by[:150], "acknowledged_at": timezone.now()}
    return bool(opened.update(**values))


def resolve(pk: int, *, by: str) -> bool:
    """Resolve an alert by hand; return ``False`` if it was before."""
    unresolved = Alert.objects.filter(pk=pk, state__in=UNRESOLVED)
    return bool(unresolved.update(state=Alert.State.RESOLVED, resolved_by=by[:150], resolved_at=timezone.now()))


def resolve_triaged(still_open: Callable[[Collection[str]], Collection[str]]) -> int:
    """Resolve the alerts of groups without an open dead letter; return their count.

    Args:
        still_open: Returns those of some fingerprints that have open letters.
    """
    before, resolved = timezone.now() - SETTLED_AFTER, 0
    for fingerprints in _fingerprints("dead_letter"):
        ended = set(fingerprints) - set(still_open(fingerprints))
        resolved += _resolve_ended("dead_letter", ended, before)
    return resolved


def resolve_broker(codes: Collection[str]) -> int:
    """Resolve the alerts of the broker's server whose finding is gone; return their count.

    Args:
        codes: Codes of the present findings.
    """
    present = {f"broker-{code}" for code in codes}
    return sum(
        _resolve_ended("broker", set(fingerprints) - present, timezone.now())
        for fingerprints in _fingerprints("broker")
    )


def _fingerprints(kind: str) -> Iterator[list[str]]:
    last = ""
    while True:
        rows = Alert.objects.filter(kind=kind, state__in=UNRESOLVED, fingerprint__gt=last).order_by("fingerprint")
        found = list(rows.values_list("fingerprint", flat=True).distinct()[:FINGERPRINTS_AT_ONCE])
        if found:
            yield found
        if len(found) < FINGERPRINTS_AT_ONCE:
            return
        last = found[-1]


def _resolve_ended(kind: str, fingerprints: Collection[str], before: datetime) -> int:
    if not fingerprints:
        return 0
    rows = Alert.objects.filter(kind=kind, state__in=UNRESOLVED, fingerprint__in=fingerprints, last_at__lt=before)
    return rows.update(state=Alert.State.RESOLVED, resolved_by="", resolved_at=timezone.now())
