"""Alerts as JSON to a configured URL."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import urllib3

from switchyard.alerts.channels import DEADLINE_S
from switchyard.alerts.errors import ChannelFailed
from switchyard.alerts.notice import Notice


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
            ChannelFailed: no answer in time, or another status.
        """
        body = json.dumps(notice.as_json()).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": notice.id}
        limit = urllib3.Timeout(total=DEADLINE_S)
        try:
            # The body of the answer is not read: it could last for ever.
            with (
                urllib3.PoolManager(1, retries=False, timeout=limit) as pool,
                pool.request("POST", self.url, body=body, headers=headers, preload_content=False) as answer,
            ):
                status = answer.status
        except urllib3.exceptions.HTTPError as error:
            # The error's own message contains the URL.
            raise ChannelFailed(self.name, type(error).__name__) from None
        if not 200 <= status < 300:
            raise ChannelFailed(self.name, f"answered {status}", answered=True)
