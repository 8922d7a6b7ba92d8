"""The assignment of a child: everything its supervisor decides before the start."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from switchyard.broker.topology import Pool
from switchyard.conf import declared_yard


@dataclass(frozen=True, slots=True)
class Assignment:
    """Role of a child.

    Args:
        title: Shown by ``ps``.
        child: Name of the child in the broker.
        index: Its row of the table, from 1.
        lanes: Names of the lanes it serves.
        slots: Messages it runs at once.
        grace_s: Seconds that its tasks may take to end when it drains.
        isolated: Whether it runs suspects, one at a time, and ends when there are none left.
        exclusive: Whether the pool's other children are quiet meanwhile; only then it runs lapse suspects.
    """

    pool: Pool
    title: str
    child: str
    index: int
    lanes: tuple[str, ...]
    slots: int
    grace_s: float
    isolated: bool
    exclusive: bool = False

    def to_argument(self) -> str:
        return json.dumps({**asdict(self), "pool": self.pool.name})


def read_assignment(argument: str) -> Assignment:
    """Return the assignment of a command line, with the pool of that name of the declared yard."""
    fields = json.loads(argument)
    return Assignment(**{**fields, "pool": declared_yard().pool(fields["pool"]), "lanes": tuple(fields["lanes"])})
