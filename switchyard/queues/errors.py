"""Reasons for which an act on a queue is refused."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class ForeignBroker(SwitchyardError):
    """The broker of this deployment has no such act."""

    def __init__(self, broker: str) -> None:
        super().__init__(f"a {broker} can neither be browsed nor paused; use the server's own tools")


class PurgeEnded(SwitchyardError):
    """A purge can no longer be undone."""

    def __init__(self, fact: str) -> None:
        super().__init__(f"{fact}: its messages cannot be put back; a purge can be undone for a minute")


class NotMoved(SwitchyardError):
    """Messages cannot be relocated to the queue that they are in, or imported from a server that cannot be reached."""
