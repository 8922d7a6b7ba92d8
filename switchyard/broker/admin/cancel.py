"""Cancellation of a job, whatever its place."""

from __future__ import annotations

from typing import Any

from dramatiq.message import Message

from switchyard.broker.interface import Facilities
from switchyard.broker.queue.results import NO_RECORD, CancelRecord
from switchyard.broker.stores.ended_jobs import encode_rows
from switchyard.broker.stores.job_record import JobRecord, cancelled_job
from switchyard.broker.stores.job_records import JobRecords
from switchyard.broker.stores.job_steps import ended_step


def cancel(facilities: Facilities, job_id: str) -> str:
    """Prevent a job from starting, or request that it stops at its next step; also one without a record.

    Returns:
        ``unknown`` (a job without a record may have ended), ``ended`` (too late), ``asked`` (a worker holds it) or
        ``cancelled`` (it never starts).
    """
    record = facilities.records.read(job_id)
    if record is None:
        return _cancel(facilities, job_id)
    if record.end_recorded:
        return "ended"
    place = _cancel(facilities, job_id, record.queue, _end_of(facilities.records, record))
    recorded = place == "cancelled" and facilities.transport.finds_waiting
    answer = facilities.records.cancel(job_id, place=place, known=record, row=not recorded)
    if answer != "unknown":
        return answer
    return "unknown" if (now := facilities.records.read(job_id)) is None or not now.ended else "ended"


def _cancel(facilities: Facilities, job_id: str, queue: str = "", end: CancelRecord = NO_RECORD) -> str:
    """Ask the queue that has the job, then the others: it may have been relocated meanwhile."""
    names = [name for name in facilities.records.queues if name != queue]
    for name in [queue, *names] if queue else names:
        answer = facilities.transport.cancel(name, job_id, end=end)
        if answer in ("cancelled", "asked"):
            return answer
    return "unknown"


def _end_of(records: JobRecords, known: JobRecord) -> CancelRecord:
    """Return the cancellation of a job, recorded with its message: a kill comes before both or after both."""
    step, limits = ended_step(known.queue, cancelled_job(known)), records.limits
    share = limits.records_bytes // max(len(records.queues), 1)
    return CancelRecord(step.record, encode_rows(step.rows), limits.ended_ms, share, records.history_share)


def find_unrecorded(facilities: Facilities, job_id: str) -> Message[Any] | None:
    """Return the message of a job that keeps no record, while it waits, is scheduled or runs; one command a queue.

    Its ``queue_name`` is that of its queue, also when it is in the retry lane.
    """
    found = (facilities.transport.find_message(queue.name, job_id) for queue in facilities.yard.queues)
    return next((message for message in found if message is not None), None)
