"""Pauses in words, for pages and commands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from switchyard.broker.clock import datetime_of
from switchyard.broker.shapes import ActorPause, QueuePause
from switchyard.console.formatting import ago


@dataclass(frozen=True, slots=True)
class PauseFacts:
    """Pause of a queue or of an actor, with its times; or an open circuit, with its probe and how often it opened."""

    since: datetime | None
    until: datetime | None
    by: str
    reason: str
    probe: str = ""
    times: int = 0

    @property
    def sentence(self) -> str:
        """Sentence of who paused it, since when, and why."""
        by = f" by {self.by}" if self.by else ""
        since = f", {ago(self.since)} ({self.since:%Y-%m-%d %H:%M:%S} UTC)" if self.since else ""
        if self.times:
            failed = f" {self.times - 1} probes failed." if self.times > 1 else ""
            first = "Reason" if self.by else "First failure"
            opened = f"opened{by}" if self.by else "open"
            return f"Circuit {opened}{since}.{failed}{f' {first}: {self.reason}.' if self.reason else ''}"
        return f"Paused{by}{since}.{f' Reason: {self.reason}.' if self.reason else ''}"

    @property
    def end(self) -> str:
        if self.probe:
            return "The next job probes it." if self.probe == "*" else f"Job {self.probe} probes it now."
        if self.times and self.until is not None:
            return f"One job probes it {ago(self.until)}, at {self.until:%Y-%m-%d %H:%M:%S} UTC."
        if self.until is None:
            return "It stays so until somebody resumes it."
        return f"Resumes by itself {ago(self.until)}, at {self.until:%Y-%m-%d %H:%M:%S} UTC."

    def __str__(self) -> str:
        return f"{self.sentence} {self.end}"


def pause_facts(pause: ActorPause | QueuePause) -> PauseFacts:
    """Return a pause or an open circuit as pages and commands show it."""
    begun, end = (datetime_of(ms) if ms else None for ms in (pause.since, pause.until))
    if isinstance(pause, ActorPause) and pause.is_open:
        return PauseFacts(begun, end, pause.by, pause.reason, pause.probe, pause.times)
    return PauseFacts(begun, end, pause.by, pause.reason)
