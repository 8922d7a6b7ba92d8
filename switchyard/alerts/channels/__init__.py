"""Channels that alerts are sent to, one file for each kind."""

from __future__ import annotations

from typing import Protocol

from switchyard.alerts.notice import Notice

DEADLINE_S = 5.0


class Channel(Protocol):
    """Interface of a channel for alert messages."""

    @property
    def name(self) -> str:
        """Unique name without secrets."""

    def send(self, notice: Notice) -> None:
        """Send one message within ``DEADLINE_S``.

        Raises:
            ChannelFailed: the channel did not accept the message.
        """
