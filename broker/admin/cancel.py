"""Cancellation of a job, whatever its place."""

from __future__ import annotations

from typing import Any

from dramatiq.message import Message

from broker.interface import Facilities


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step.

    Every queue is asked, because the record names the one that the job was sent to, and it may have been relocated. A
    job without a record, such as one sent with ``track=False``, is cancelled as well.

    Returns:
        ``unknown`` (a job without a record may have ended), ``ended`` (too late), ``asked`` (a worker holds it) or
        ``cancelled`` (it never starts).

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    record = facilities.records.read(job_id)
    if record is None:
        return _cancel(facilities, job_id)
    return facilities.records.cancel(job_id, place="unknown" if record.ended else _cancel(facilities, job_id))


def _cancel(facilities: Facilities, job_id: str) -> str:
    answers = {facilities.transport.cancel(queue.name, job_id) for queue in facilities.yard.queues}
    return next((answer for answer in ("cancelled", "asked") if answer in answers), "unknown")


def find_unrecorded(facilities: Facilities, job_id: str) -> Message[Any] | None:
    """Return the message of a job that keeps no record, while it waits, is scheduled or runs; one command a queue.

    Its ``queue_name`` is that of its queue, also when it is in the retry lane.

    Raises:
        BrokerUnavailable: the server did not answer.
    """
    found = (facilities.transport.find_message(queue.name, job_id) for queue in facilities.yard.queues)
    return next((message for message in found if message is not None), None)
