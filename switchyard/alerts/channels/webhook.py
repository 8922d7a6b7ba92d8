"""Alerts as JSON to a configured URL."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from switchyard.alerts.channels import DEADLINE_S
from switchyard.alerts.errors import ChannelFailed
from switchyard.alerts.notice import Notice
from switchyard.outbound.http import OutboundError, send

LARGEST_ANSWER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """Channel that posts each message to a URL. The URL is a secret: its path or query often is the only credential."""

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        """Host, and a digest that distinguishes two URLs of one host."""
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return f"webhook {urlsplit(self.url).hostname} #{digest}"[:200]

    def send(self, notice: Notice) -> None:
        """Post one message; only a 2xx answer counts as accepted.

        Raises:
            ChannelFailed: no answer in time, an address that is not allowed, or another status.
        """
        body = json.dumps(notice.as_json()).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.id}
        try:
            answer = send(
                "POST",
                self.url,
                headers=headers,
                body=body,
                deadline_s=DEADLINE_S,
                max_bytes=LARGEST_ANSWER_BYTES,
                truncate=True,
            )
        except OutboundError as error:
            # The error's own message may contain the URL.
            raise ChannelFailed(self.name, type(error).__name__) from None
        if not 200 <= answer.status < 300:
            raise ChannelFailed(self.name, f"answered {answer.status}", answered=True)
