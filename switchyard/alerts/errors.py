"""Errors of alerting. Messages contain at most scheme and host of a channel's URL."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class ChannelFailed(SwitchyardError):
    """A channel did not accept a message. Sending is retried, 5 attempts in all.

    Args:
        answered: Whether the channel answered and refused only this message.
    """

    def __init__(self, channel: str, fact: str, *, answered: bool = False) -> None:
        self.fact = fact
        self.answered = answered
        super().__init__(f"alert channel {channel}: {fact}; retried up to 5 times; check SWITCHYARD_ALERT_URLS")
