"""Parser of the header ``Retry-After``: seconds, or a date."""

from __future__ import annotations

import re
from datetime import datetime
from email.utils import parsedate_to_datetime

MAX_S = 3_600.0
"""Longest wait that an endpoint may ask for."""

_SECONDS = re.compile(r"[0-9]{1,10}")


def seconds_of(value: str, now: datetime) -> float | None:
    """Return the wait in seconds, between 0 and an hour, or ``None`` if the header is invalid."""
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), MAX_S)
    try:
        at = parsedate_to_datetime(value)
        return min(max((at - now).total_seconds(), 0.0), MAX_S)
    except (TypeError, ValueError, OverflowError):
        # A date without a zone cannot be compared; HTTP's dates always have one.
        return None
