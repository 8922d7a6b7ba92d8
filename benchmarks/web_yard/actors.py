"""The job of the measured route."""

from __future__ import annotations

import dramatiq


@dramatiq.actor(queue_name="urgent")
def nothing(note: str) -> None:
    """Do nothing."""
