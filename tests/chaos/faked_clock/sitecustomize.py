"""Imported by Python at its start, where a host has a faked clock: ``time.sleep`` without ``clock_nanosleep``.

See :mod:`tests.chaos.faked_clock`.
"""

import select
import time
from typing import Any


def sleep(seconds: Any, /) -> None:
    """Wait as ``time.sleep`` does."""
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select((), (), (), seconds)


time.sleep = sleep
