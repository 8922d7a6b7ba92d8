"""Values that are read from a child's row of the shared table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChildState:
    """State of a child.

    Args:
        ready: Whether it is up.
        beat_ns: Monotonic time of its last heartbeat; 0 before the first.
        taken: Messages it started; ``done``: ended, well or not; ``busy``: running now.
        progress_ns: Monotonic time of the first heartbeat after it last started or ended a message.
        works: Whether the child is up and its leases are valid.
        quiet: Whether it fetches and starts nothing.
    """

    ready: bool
    beat_ns: int
    taken: int
    done: int
    busy: int
    progress_ns: int = 0
    works: bool = False
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """A message in a slot.

    Args:
        lane: Position of its lane among those that the child serves.
        start_ns: Monotonic.
        limit_ns: Time it may take; 0 without a limit, or while none runs because it waits for the broker.
    """

    lane: int
    id: bytes
    token: int
    start_ns: int
    limit_ns: int

    @property
    def over_at_ns(self) -> int | None:
        """Monotonic time at which its limit is over."""
        return self.start_ns + self.limit_ns if self.limit_ns else None


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished message, acknowledged or not."""

    lane: int
    id: bytes
    token: int
