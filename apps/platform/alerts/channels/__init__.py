"""Where alerts go. One file a kind of channel."""

from __future__ import annotations

from typing import Protocol

from apps.platform.alerts.notice import Notice

DEADLINE_S = 5.0


class Channel(Protocol):
    """Takes messages for people."""

    @property
    def name(self) -> str:
        """Tell this channel from the others, without its secrets."""

    def send(self, notice: Notice) -> None:
        """Send one message within ``DEADLINE_S``.

        Raises:
            ChannelFailed: it was not taken.
        """
