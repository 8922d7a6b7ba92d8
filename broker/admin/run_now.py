"""Start of a scheduled job before its time."""

from __future__ import annotations

from broker.interface import Facilities

# Put off for a reason that lasts: a worker would put it off again.
HELD: tuple[str, ...] = ("rate_limit", "parked")


def run_now(facilities: Facilities, job_id: str) -> str:
    """Make a scheduled job, or one that waits for its retry, due at once. No attempt is spent.

    Returns:
        ``due``: it starts as soon as a slot is free; ``waiting``: it waits or runs already; ``held``: a rate limit
        holds it, or no worker knows its actor; ``ended``; ``unknown``: no job has the id, or it cannot be found.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is not None and (record.ended or record.end_recorded):
        return "ended"
    if record is not None and record.state == "scheduled" and record.reason in HELD:
        return "held"
    first = record.queue if record is not None else ""
    # Its own queue first, then the others: it may have been relocated meanwhile.
    for queue in sorted(facilities.records.queues, key=lambda name: name != first):
        answer = facilities.transport.due_now(queue, job_id)
        if answer != "unknown":
            return answer
    return "unknown"
