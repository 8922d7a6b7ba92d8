"""Cancellation of a job, whatever its place."""

from __future__ import annotations

from broker.interface import Facilities


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step.

    Every queue is asked, because the record names the one that the job was sent to, and it may have been relocated.

    Returns:
        ``unknown``, ``ended`` (too late), ``asked`` (a worker holds it) or ``cancelled`` (it never starts).

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is None:
        return "unknown"
    return facilities.records.cancel(job_id, place="unknown" if record.ended else _cancel(facilities, job_id))


def _cancel(facilities: Facilities, job_id: str) -> str:
    answers = {facilities.transport.cancel(queue.name, job_id) for queue in facilities.yard.queues}
    return next((answer for answer in ("cancelled", "asked") if answer in answers), "unknown")
