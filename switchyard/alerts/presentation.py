"""Alerts and silences as JSON and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from switchyard.alerts.models import Alert, Delivery, Silence
from switchyard.console.runbook import runbook_of_alert
from switchyard.middleware.logs import printable


def alert_json(alert: Alert, deliveries: Sequence[Delivery] | None = None) -> dict[str, Any]:
    """Return an alert as JSON; times are ISO 8601 in UTC."""
    body = {
        "id": alert.pk,
        "state": alert.state,
        "severity": alert.severity,
        "kind": alert.kind,
        "title": alert.title,
        "queue": alert.queue,
        "actor": alert.actor,
        "count": alert.count,
        "first_at": _iso(alert.first_at),
        "last_at": _iso(alert.last_at),
        "fingerprint": alert.fingerprint,
        "link": alert.link,
        "acknowledged_by": alert.acknowledged_by,
        "acknowledged_at": _iso(alert.acknowledged_at),
        "resolved_by": alert.resolved_by,
        "resolved_at": _iso(alert.resolved_at),
    }
    if deliveries is None:
        return body
    messages = [
        {
            "channel": delivery.channel,
            "count": delivery.count,
            "state": delivery.state,
            "tries": delivery.tries,
            "sent_at": _iso(delivery.sent_at),
            "error": delivery.error,
        }
        for delivery in deliveries
    ]
    return body | {"sample": alert.sample, "messages": messages}


def alert_line(alert: Alert) -> str:
    """Return an alert in one line."""
    times = "" if alert.count == 1 else f" ({alert.count:,} times)"
    last = f"{alert.last_at:%Y-%m-%d %H:%M:%S} UTC"
    return printable(f"{alert.pk:>6}  {alert.state:12}  {alert.severity:8}  {last}  {alert.title}{times}")


def alert_text(alert: Alert, deliveries: Sequence[Delivery]) -> str:
    """Return an alert with its messages, one fact a line."""
    pairs = [(name, value) for name, value in alert_json(alert).items() if value not in ("", None)]
    lines = [printable(f"{name:16} {value}") for name, value in pairs]
    lines.append(f"{'steps':16} {runbook_of_alert(alert.kind)}")
    lines += ["", *(printable(line) for line in alert.sample.splitlines())]
    for delivery in deliveries:
        sent = f" {delivery.sent_at:%Y-%m-%d %H:%M:%S} UTC" if delivery.sent_at else ""
        error = f": {delivery.error}" if delivery.error else ""
        lines.append(printable(f"{delivery.channel}: {delivery.state}{sent}, {delivery.count:,} times{error}"))
    return "\n".join(lines)


def silence_json(silence: Silence) -> dict[str, Any]:
    """Return a silence as JSON; an empty fingerprint stands for every alert."""
    return {
        "id": silence.pk,
        "fingerprint": silence.fingerprint,
        "until": _iso(silence.until),
        "reason": silence.reason,
        "created_by": silence.created_by,
        "created_at": _iso(silence.created_at),
        "ended_by": silence.ended_by,
        "ended_at": _iso(silence.ended_at),
    }


def silence_line(silence: Silence, named: str) -> str:
    """Return a silence in one line."""
    until = f"until {silence.until:%Y-%m-%d %H:%M} UTC"
    return printable(f"silence {silence.pk}: {named}, {until}, by {silence.created_by}: {silence.reason}")


def _iso(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
