"""Cancel a job, wherever it is."""

from __future__ import annotations

from broker.interface import Facilities


def cancel(facilities: Facilities, job_id: str) -> str:
    """Keep a job from starting, or ask it to stop at its next step.

    Returns:
        ``unknown``, ``ended`` (too late), ``asked`` (a worker has it) or ``cancelled`` (it never starts).

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is None:
        return "unknown"
    place = "unknown" if record.ended else facilities.transport.cancel(record.queue, job_id)
    return facilities.records.cancel(job_id, place=place)
