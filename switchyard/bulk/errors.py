"""Errors of bulk acts."""

from __future__ import annotations

from switchyard.broker.errors import SwitchyardError


class NoRoom(SwitchyardError):
    """A queue is at its ``max_depth``; the act goes on once it has room."""

    def __init__(self, queues: str) -> None:
        super().__init__(f"queue {queues} is full; the act goes on once there is room")
