"""Errors of bulk acts."""

from __future__ import annotations

from collections.abc import Iterable

from switchyard.broker.errors import SwitchyardError


class UnknownKind(SwitchyardError):
    """No installed app registers this kind of bulk act."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"bulk act {name!r}: no such kind; known are {', '.join(sorted(known))}")


class UnknownBulkAct(SwitchyardError):
    """No bulk act has this number."""

    def __init__(self, number: object) -> None:
        super().__init__(f"bulk act {number}: there is none; see `manage.py switchyard bulk list`")


class NoRoom(SwitchyardError):
    """A queue is at its ``max_depth``; the act goes on once it has room."""

    def __init__(self, queues: str) -> None:
        super().__init__(f"queue {queues} is full; the act goes on once there is room")
