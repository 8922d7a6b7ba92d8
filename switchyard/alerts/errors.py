"""Errors of alerting. Messages contain at most scheme and host of a channel's URL."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class InvalidAlertUrl(SwitchyardError):
    """No channel can use an entry of SWITCHYARD_ALERT_URLS."""

    def __init__(self, position: int, fact: str) -> None:
        super().__init__(
            f"SWITCHYARD_ALERT_URLS: entry {position} {fact}; "
            "use log:, mailto:ops@example.com or https://hooks.example.com/…, separated by spaces"
        )


class ChannelFailed(SwitchyardError):
    """A channel did not accept a message. Sending is retried, 5 attempts in all.

    Args:
        answered: Whether the channel answered and refused only this message.
    """

    def __init__(self, channel: str, fact: str, *, answered: bool = False) -> None:
        self.fact = fact
        self.answered = answered
        super().__init__(f"alert channel {channel}: {fact}; retried up to 5 times; check SWITCHYARD_ALERT_URLS")


class UnknownChannel(SwitchyardError):
    """No channel of the settings has the name."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        super().__init__(
            f"SWITCHYARD_ALERT_URLS has no channel {name!r}; it has {', '.join(known)}: reload the page of alerts"
        )


class InvalidSilence(SwitchyardError):
    """A silence has no usable end, or no reason."""

    def __init__(self, fact: str, remedy: str) -> None:
        super().__init__(f"silence: {fact}; {remedy}")
