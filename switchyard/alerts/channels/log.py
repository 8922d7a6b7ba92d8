"""Alerts as log lines."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from switchyard.alerts.notice import Notice

log = structlog.get_logger("switchyard.alerts")


@dataclass(frozen=True, slots=True)
class LogChannel:
    """Channel that writes each message as one log line."""

    name: str = "log"

    def send(self, notice: Notice) -> None:
        """Write one line. Never fails."""
        log.error(
            "alert",
            title=notice.title, kind=notice.kind, severity=notice.severity, queue=notice.queue, actor=notice.actor,
            count=notice.count, new=notice.count - notice.reported, fingerprint=notice.fingerprint, link=notice.link,
        )  # fmt: skip
