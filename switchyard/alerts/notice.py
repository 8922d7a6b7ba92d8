"""Content of one alert message: plain values, text and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from switchyard.console.runbook import runbook_of_alert


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert message.

    Args:
        id: The same for every attempt to send this message, so that receivers can drop repetitions.
        count: Occurrences since the first.
        reported: Occurrences that earlier messages reported.
        link: Absolute URL of the admin page, or "".
    """

    id: str
    fingerprint: str
    kind: str
    severity: str
    title: str
    sample: str
    queue: str
    actor: str
    count: int
    reported: int
    first_at: datetime
    last_at: datetime
    link: str

    @property
    def headline(self) -> str:
        """Severity, title and count in one line."""
        times = "" if self.count == 1 else f" ({self.count:,} times)"
        return f"[{self.severity}] {self.title}{times}"

    @property
    def text(self) -> str:
        """The whole message as plain text."""
        lines = [self.title, ""]
        if self.reported:
            since = f"{self.first_at:%Y-%m-%d %H:%M:%S} UTC"
            lines.append(f"{self.count - self.reported:,} more, {self.count:,} since {since}.")
        elif self.count > 1:
            lines.append(f"{self.count:,} times so far.")
        facts = (("Queue", self.queue), ("Actor", self.actor), ("First", self._clock(self.first_at)))
        lines += [f"{name}: {value}" for name, value in (*facts, ("Last", self._clock(self.last_at))) if value]
        lines += ["", self.sample]
        lines += ["", f"Steps: {runbook_of_alert(self.kind)}"]
        if self.link:
            lines += ["", self.link]
        return "\n".join(lines)

    def as_json(self) -> dict[str, object]:
        """Return the body of a webhook. Times are ISO 8601 in UTC."""
        return {
            "id": self.id,
            "type": f"switchyard.alert.{self.kind}",
            "fingerprint": self.fingerprint,
            "severity": self.severity,
            "title": self.title,
            "text": self.sample,
            "queue": self.queue,
            "actor": self.actor,
            "count": self.count,
            "new": self.count - self.reported,
            "first_at": self.first_at.isoformat(timespec="microseconds"),
            "last_at": self.last_at.isoformat(timespec="microseconds"),
            "link": self.link,
            "runbook": runbook_of_alert(self.kind),
        }

    @staticmethod
    def _clock(moment: datetime) -> str:
        return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
