"""Errors of alerting. None of them names more of a channel's URL than its scheme and host."""

from __future__ import annotations

from broker.errors import SwitchyardError


class InvalidAlertUrl(SwitchyardError):
    """An entry of SWITCHYARD_ALERT_URLS that no channel can use."""

    def __init__(self, position: int, fact: str) -> None:
        super().__init__(
            f"SWITCHYARD_ALERT_URLS: entry {position} {fact}; "
            "use log:, mailto:ops@example.com or https://hooks.example.com/…, separated by spaces"
        )


class ChannelFailed(SwitchyardError):
    """A channel did not take a message. It is tried again a few times.

    Args:
        answered: It is there and said no to this message; it may take the next.
    """

    def __init__(self, channel: str, fact: str, *, answered: bool = False) -> None:
        self.fact = fact
        self.answered = answered
        super().__init__(f"alert channel {channel}: {fact}; it is tried again, see SWITCHYARD_ALERT_URLS if it stays")
