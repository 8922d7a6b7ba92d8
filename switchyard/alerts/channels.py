"""Channels that alerts are sent to, and the entries of SWITCHYARD_ALERT_URLS that name them.

A channel's name is unique and holds no secret. ``send`` sends one message within ``DEADLINE_S``, or raises
``ChannelFailed``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from smtplib import SMTPException
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import urllib3
from django.core import mail
from django.core.exceptions import ValidationError
from django.core.mail import EmailMessage
from django.core.validators import validate_email

from switchyard.alerts.notice import Notice
from switchyard.broker.errors import SwitchyardError
from switchyard.loggers import get_logger
from switchyard.setting_values import InvalidSetting


class ChannelFailed(SwitchyardError):
    """A channel did not accept a message. Sending is retried, 5 attempts in all.

    Args:
        answered: Whether the channel answered and refused only this message.
    """

    def __init__(self, channel: str, fact: str, *, answered: bool = False) -> None:
        self.fact = fact
        self.answered = answered
        super().__init__(f"alert channel {channel}: {fact}; retried up to 5 times; check SWITCHYARD_ALERT_URLS")


DEADLINE_S = 5.0
LONGEST_SUBJECT = 200

log = get_logger("switchyard.alerts")


class Channel(Protocol):
    """Interface of a channel for alert messages."""

    @property
    def name(self) -> str: ...

    def send(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class LogChannel:
    """Channel that writes each message as one log line. It never fails."""

    name: str = "log"

    def send(self, notice: Notice) -> None:
        alert = notice.alert
        log.error(
            "alert",
            title=alert.title, kind=alert.kind, severity=alert.severity, state=alert.state, queue=alert.queue,
            actor=alert.actor, count=notice.count, new=notice.count - notice.reported, fingerprint=alert.fingerprint,
            link=alert.link,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class EmailChannel:
    """Channel that mails each message to fixed addresses, through the project's mail server."""

    recipients: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"email {', '.join(self.recipients)}"[:200]

    def send(self, notice: Notice) -> None:
        subject = " ".join(notice.headline.split())[:LONGEST_SUBJECT]
        # A repeated attempt carries the same Message-ID, so that mailboxes show it once.
        headers = {"Message-ID": f"<alert-{notice.id}@switchyard>", "Auto-Submitted": "auto-generated"}
        message = EmailMessage(subject, notice.text, to=list(self.recipients), headers=headers)
        # Django 6.1 has mailers, and deprecates the other.
        connection: Any = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
        connection.timeout = DEADLINE_S
        try:
            connection.send_messages([message])
        except (OSError, SMTPException) as error:
            raise ChannelFailed(self.name, f"{type(error).__name__} from the mail server") from error


@dataclass(frozen=True, slots=True)
class WebhookChannel:
    """Channel that posts each message as JSON to a URL; only a 2xx answer counts as accepted.

    The URL is a secret, its path or query often is the only credential: the name has its host and a digest.
    """

    url: str = field(repr=False)

    @property
    def name(self) -> str:
        digest = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        return f"webhook {urlsplit(self.url).hostname} #{digest}"[:200]

    def send(self, notice: Notice) -> None:
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


def channels(urls: Sequence[str]) -> tuple[Channel, ...]:
    """Return one channel for each distinct URL; without any URL the log channel.

    Raises:
        InvalidSetting: no channel can use an entry. The message names its position, never the URL.
    """
    found = {channel.name: channel for channel in (parse(url, at) for at, url in enumerate(urls, start=1))}
    return tuple(found.values()) or (LogChannel(),)


def parse(url: str, position: int) -> Channel:
    """Return the channel of the URL at a position in the list, from 1; errors as for ``channels``."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _unusable(position, "is no URL") from error
    if parts.scheme == "log":
        return LogChannel()
    if parts.scheme == "mailto":
        return EmailChannel(_recipients(parts.path, position))
    if parts.scheme not in ("http", "https"):
        raise _unusable(position, f"has the scheme {parts.scheme!r}")
    if not parts.hostname or port == 0:
        raise _unusable(position, "names no host")
    return WebhookChannel(url)


def _unusable(position: int, fact: str) -> InvalidSetting:
    remedy = "use log:, mailto:ops@example.com or https://hooks.example.com/…, separated by spaces"
    return InvalidSetting("SWITCHYARD_ALERT_URLS", f"entry {position} {fact}", remedy)


def _recipients(path: str, position: int) -> tuple[str, ...]:
    addresses = tuple(address.strip() for address in unquote(path).split(",") if address.strip())
    if not addresses:
        raise _unusable(position, "names no address after mailto:")
    for address in addresses:
        try:
            validate_email(address)
        except ValidationError as error:
            raise _unusable(position, f"names {address!r}, which is no e-mail address") from error
    return addresses
