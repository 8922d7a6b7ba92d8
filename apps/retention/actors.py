"""The job that removes what is older than its retention, some seconds of it at a time."""

import dramatiq
from periodiq import cron

from apps.retention import services
from switchyard.broker.clock import now_ms
from switchyard.broker.queue.administration import limits_lifted
from switchyard.broker.topology import Yard
from switchyard.conf import declared_yard

# A job of a long run makes room for others, and a deploy waits for no longer than this.
AT_A_TIME_S = 10.0


def queue_of(yard: Yard) -> str:
    """Return the queue of the job: ``default``, or else the yard's first."""
    names = [queue.name for queue in yard.queues]
    return "default" if "default" in names else names[0]


@dramatiq.actor(queue_name=queue_of(declared_yard()), periodic=cron("20 4 * * *"))
def apply_retention(run: int | None = None) -> None:
    """Remove rows and files that are older than their retention, and count what is kept. Safe to repeat.

    Args:
        run: Number of the run that this job continues; ``None`` begins one, and an earlier one ends.
    """
    number = now_ms() if run is None else run
    if not services.work(number, for_s=AT_A_TIME_S):
        with limits_lifted():  # its own queue may be the full one
            apply_retention.send(run=number)
