"""Rows of the yard as this process has read them last, for the time in which the broker does not answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from django.utils import timezone

from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard
from switchyard.operations.queries import YardState
from switchyard.operations.rows import UNKNOWN, Row, yard_rows

KEPT_FOR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class KeptRows:
    """Rows whose state is unknown, with the figures that they had at a time."""

    rows: tuple[Row, ...]
    at: datetime


_last: list[tuple[Yard, YardState, datetime]] = []


def keep(state: YardState) -> None:
    """Keep a state that was read now."""
    _last[:] = [(declared_yard(), state, timezone.now())]


def kept_rows() -> KeptRows | None:
    """Return the rows of the last state; ``None`` where this process has read none for an hour."""
    yard = declared_yard()
    if not _last or _last[0][0] != yard or timezone.now() - _last[0][2] > KEPT_FOR:
        return None
    _, state, at = _last[0]
    return KeptRows(tuple(replace(row, state=UNKNOWN) for row in yard_rows(yard, state)), at)


def forget() -> None:
    """Forget the last state."""
    _last.clear()
