"""Numbers as people say them."""

from __future__ import annotations

from collections.abc import Sequence

from demo.sample.journal import SentJob

MINUTE_S = 60
HOUR_S = 3600


def duration(seconds: float) -> str:
    """Return for example ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02d} s"
    return f"{whole // HOUR_S} h {whole % HOUR_S // MINUTE_S:02d} min"


def megabytes(size_bytes: int) -> str:
    """Return for example ``512 MB``; ``-`` for nothing."""
    return f"{size_bytes / 1_000_000:.0f} MB" if size_bytes else "-"


def counts(jobs: Sequence[SentJob]) -> dict[str, int]:
    """Return how many jobs are in each state, in the order people ask."""
    order = ("succeeded", "running", "queued", "retrying", "scheduled", "dead", "cancelled", "expired", "sent")
    found = {state: sum(1 for job in jobs if job.state == state) for state in order}
    return {state: count for state, count in found.items() if count}
