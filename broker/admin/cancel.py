"""Cancellation of a job, whatever its place."""

from __future__ import annotations

from broker.interface import Facilities


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step.

    Returns:
        ``unknown``, ``ended`` (too late), ``asked`` (a worker holds it) or ``cancelled`` (it never starts).

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is None:
        return "unknown"
    place = "unknown" if record.ended else facilities.transport.cancel(record.queue, job_id)
    return facilities.records.cancel(job_id, place=place)
