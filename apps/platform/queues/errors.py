"""Reasons for which an act on a queue is refused."""

from __future__ import annotations

from broker.errors import SwitchyardError


class ForeignBroker(SwitchyardError):
    """The broker of this deployment has no such act."""

    def __init__(self, broker: str) -> None:
        super().__init__(f"a {broker} can neither be browsed nor paused; use the server's own tools")


class InvalidTime(SwitchyardError, ValueError):
    """The end of a pause is no time in the future."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f"until {text!r}: {why}; write a span (30m, 2h), a time of day in UTC (14:00) or ISO 8601")
