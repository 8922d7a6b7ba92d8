"""Wall clock of this process. The server's own clock decides everything about leases and due times."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Return the wall clock in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
