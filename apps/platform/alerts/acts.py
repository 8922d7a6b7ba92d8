"""Acts of people on alerts, each with its row in the audit log."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from apps.platform.alerts import resolution, services, silences
from apps.platform.alerts.models import Alert, Silence
from apps.platform.audit.services import Who, act

if TYPE_CHECKING:
    from django.contrib.auth.models import User

MOST_IDS = 100


def acknowledge(alerts: Sequence[Alert], *, who: Who, by: User | str, reason: str = "") -> int:
    """Acknowledge alerts; return how many were open."""
    target, detail = _named(alerts)
    with act("alert.acknowledge", who=who, target=target, reason=reason, detail=detail) as entry:
        entry.count = 0
        for alert in alerts:
            entry.count += services.acknowledge(alert, by=by)
        return entry.count


def resolve(alerts: Sequence[Alert], *, who: Who, reason: str = "") -> int:
    """Resolve alerts by hand; return how many were not resolved."""
    target, detail = _named(alerts)
    with act("alert.resolve", who=who, target=target, reason=reason, detail=detail) as entry:
        entry.count = 0
        for alert in alerts:
            entry.count += resolution.resolve(alert.pk, by=who.name)
        return entry.count


def silence(fingerprint: str, until: datetime, *, who: Who, reason: str) -> Silence:
    """Silence alerts of one fingerprint, or with "" every alert.

    Raises:
        InvalidSilence: there is no reason.
    """
    detail = {"until": until.isoformat(timespec="seconds")}
    with act("alert.silence", who=who, target=fingerprint, reason=reason, detail=detail) as entry:
        made = silences.create(fingerprint=fingerprint, until=until, reason=reason, by=who.name)
        entry.count, entry.detail = 1, detail | {"silence": made.pk}
        return made


def unsilence(silence_id: int, *, who: Who, reason: str = "") -> Silence | None:
    """End a silence; ``None`` when there is none, or it is over already."""
    with act("alert.unsilence", who=who, target=str(silence_id), reason=reason) as entry:
        ended = silences.end(silence_id, by=who.name)
        entry.count = int(ended is not None)
        if ended is not None:
            entry.detail = {"fingerprint": ended.fingerprint}
        return ended


def _named(alerts: Sequence[Alert]) -> tuple[str, dict[str, object]]:
    ids = [alert.pk for alert in alerts]
    return (str(ids[0]), {}) if len(ids) == 1 else ("", {"ids": ids[:MOST_IDS], "chosen": len(ids)})
