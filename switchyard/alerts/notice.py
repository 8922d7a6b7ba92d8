"""Content of one alert message: text and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from switchyard.alerts.models import Alert
from switchyard.console.runbook import runbook_of_alert


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert message.

    Args:
        id: The same for every attempt to send this message, so that receivers can drop repetitions.
        alert: Its row; one that is not stored while the database does not answer.
        count: Occurrences since the first.
        reported: Occurrences that earlier messages reported.
    """

    id: str
    alert: Alert
    count: int
    reported: int = 0

    @property
    def headline(self) -> str:
        """Severity, title and count in one line."""
        times = "" if self.count == 1 else f" ({self.count:,} times)"
        return f"[{self.alert.severity}] {self.alert.title}{times}"

    @property
    def text(self) -> str:
        """The whole message as plain text."""
        alert = self.alert
        lines = [alert.title, ""]
        if self.reported:
            lines.append(f"{self.count - self.reported:,} more, {self.count:,} since {_clock(alert.first_at)}.")
        elif self.count > 1:
            lines.append(f"{self.count:,} times so far.")
        times = (("First", _clock(alert.first_at)), ("Last", _clock(alert.last_at)))
        lines += [
            f"{name}: {value}" for name, value in (("Queue", alert.queue), ("Actor", alert.actor), *times) if value
        ]
        lines += ["", alert.sample, "", f"Steps: {runbook_of_alert(alert.kind)}"]
        if alert.link:
            lines += ["", alert.link]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """Return the body of a webhook. Times are ISO 8601 in UTC."""
        alert = self.alert
        return {
            "id": self.id,
            "type": f"switchyard.alert.{alert.kind}",
            "fingerprint": alert.fingerprint,
            "severity": alert.severity,
            "title": alert.title,
            "text": alert.sample,
            "queue": alert.queue,
            "actor": alert.actor,
            "count": self.count,
            "new": self.count - self.reported,
            "first_at": alert.first_at.isoformat(timespec="microseconds"),
            "last_at": alert.last_at.isoformat(timespec="microseconds"),
            "link": alert.link,
            "runbook": runbook_of_alert(alert.kind),
        }


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
