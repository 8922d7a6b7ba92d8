"""The yard's time for requests, which enqueue nothing before they read the clock."""

from __future__ import annotations

from datetime import datetime

from broker import clock
from broker.interface import facilities


def compare() -> None:
    """Compare this process's clock with the server's, so that :mod:`broker.clock` tells the server's time if needed.

    Asks the server at most once in ten seconds, and waits 0.3 s at most for it.
    """
    comparison = facilities().clock
    if comparison is not None:
        comparison.compare()


def utc_now() -> datetime:
    """Compare the clocks and return the time in UTC."""
    compare()
    return clock.utc_now()
