"""The job of the measured route."""

import dramatiq


@dramatiq.actor(queue_name="urgent")
def nothing(note: str) -> None:
    """Do nothing."""
