"""Parsing of SWITCHYARD_ALERT_URLS into channels."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from switchyard.alerts.channels import Channel
from switchyard.alerts.channels.email import EmailChannel
from switchyard.alerts.channels.log import LogChannel
from switchyard.alerts.channels.webhook import WebhookChannel
from switchyard.setting_values import InvalidSetting


def channels(urls: Sequence[str]) -> tuple[Channel, ...]:
    """Return one channel for each distinct URL; without any URL the log channel.

    Raises:
        InvalidSetting: no channel can use an entry. The message names its position, never the URL.
    """
    found = {channel.name: channel for channel in (parse(url, at + 1) for at, url in enumerate(urls))}
    return tuple(found.values()) or (LogChannel(),)


def parse(url: str, position: int = 1) -> Channel:
    """Return the channel of one URL.

    Args:
        position: Position in the list, from 1, for the error.

    Raises:
        InvalidSetting: no channel can use the URL.
    """
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
