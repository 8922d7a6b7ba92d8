"""Acts of people on alerts, each with its row in the audit log."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime

from django.utils import timezone

from switchyard.alerts import resolution, silences
from switchyard.alerts.channels import channels
from switchyard.alerts.models import Alert, Silence
from switchyard.alerts.notice import Notice
from switchyard.audit.services import Who, act
from switchyard.broker.errors import NotFound
from switchyard.conf import switchyard_settings

MOST_IDS = 100


def acknowledge(alerts: Sequence[Alert], *, who: Who, reason: str = "") -> int:
    """Acknowledge alerts; return how many were open."""
    return _each("alert.acknowledge", resolution.acknowledge, alerts, who, by=who.signature, reason=reason)


def resolve(alerts: Sequence[Alert], *, who: Who, reason: str = "") -> int:
    """Resolve alerts by hand; return how many were not resolved."""
    return _each("alert.resolve", resolution.resolve, alerts, who, by=who.name, reason=reason)


def _each(name: str, change: Callable[..., bool], alerts: Sequence[Alert], who: Who, *, by: str, reason: str) -> int:
    ids = [alert.pk for alert in alerts]
    target, detail = (str(ids[0]), {}) if len(ids) == 1 else ("", {"ids": ids[:MOST_IDS], "chosen": len(ids)})
    with act(name, who=who, target=target, reason=reason, detail=detail) as entry:
        entry.count = 0
        for pk in ids:
            entry.count += change(pk, by=by)
        return entry.count


def silence(fingerprint: str, until: datetime, *, who: Who, reason: str) -> Silence:
    """Silence alerts of one fingerprint, or with "" every alert.

    Raises:
        ActRefused: there is no reason.
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


def send_test(name: str, *, who: Who) -> float:
    """Send one channel a message that says it is a test; return the seconds until it was accepted, at most 5.

    Raises:
        NotFound: SWITCHYARD_ALERT_URLS names no such channel.
        ChannelFailed: the channel did not accept it. It is not retried.
    """
    found = {channel.name: channel for channel in channels(switchyard_settings().alert_urls)}
    if name not in found:
        raise NotFound(
            f"SWITCHYARD_ALERT_URLS has no channel {name!r}; it has {', '.join(found)}: reload the page of alerts"
        )
    now = timezone.now()
    alert = Alert(
        fingerprint="test", kind="test", severity="warning", first_at=now, last_at=now, title="Test of this channel",
        sample=f"{who.name} sent it to see that alerts arrive here. Nothing is wrong.",
    )  # fmt: skip
    with act("alert.test", who=who, target=name) as entry:
        began = time.monotonic()
        found[name].send(Notice(f"test-{uuid.uuid4()}", alert, count=1))
        entry.count = 1
        return time.monotonic() - began
