"""Reasons for which an act on a queue is refused."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class ForeignBroker(SwitchyardError):
    """The broker of this deployment has no such act."""

    def __init__(self, broker: str) -> None:
        super().__init__(f"a {broker} can neither be browsed nor paused; use the server's own tools")
