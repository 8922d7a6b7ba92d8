"""Wall clock of this process. The server's own clock decides everything about leases and due times."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def datetime_of(at_ms: int) -> datetime:
    """Return the UTC time ``at_ms`` milliseconds after the epoch, without the rounding of a float."""
    return EPOCH + timedelta(milliseconds=at_ms)
