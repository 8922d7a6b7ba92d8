"""Actors of the measured jobs."""

import dramatiq


@dramatiq.actor(queue_name="slow", max_retries=0, search=("customer",))
def wait_in_line(customer: str, number: int) -> None:
    """Wait: no pool of its queue runs."""


@dramatiq.actor(queue_name="urgent")
def nothing(number: int) -> None:
    """Do nothing."""
