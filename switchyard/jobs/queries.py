"""Reads of jobs: of their records, and of the history once they have left the broker."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from dramatiq.message import Message

from switchyard.broker.admin.cancel import find_unrecorded
from switchyard.broker.interface import facilities
from switchyard.broker.queue.codec import MESSAGE_ID
from switchyard.broker.stores.job_record import read_json
from switchyard.broker.stores.job_records import ENDED, JobRecord
from switchyard.history.models import JobRow
from switchyard.history.presentation import error_of
from switchyard.history.queries import find

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_job_id(text: str) -> bool:
    """Return whether a text has the form of a job id: a UUID in lower case."""
    return _ID.fullmatch(text) is not None


def is_message_id(text: str) -> bool:
    """Return whether a job may have this id: a UUID, or an id of its sender's own."""
    return MESSAGE_ID.fullmatch(text) is not None


def written_id(text: str) -> str:
    """Return an id as somebody wrote it: a UUID in lower case, every other one as it is."""
    return text.lower() if is_job_id(text.lower()) else text


def find_job(job_id: str) -> JobRecord | None:
    """Return a job's record, or ``None`` if the id is unknown, malformed or expired.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    if not is_message_id(job_id):
        return None
    return facilities().records.read(job_id)


def with_result(record: JobRecord | None) -> JobRecord | None:
    """Return a record with the result that a store keeps for it.

    Raises:
        ResultStoreUnavailable: the store did not answer.
    """
    if record is None or not record.kept_in:
        return record
    return replace(record, result=read_json(facilities().records.results.load(record.id, record.kept_in)))


def find_known(job_id: str) -> JobRecord | None:
    """Return a job's record, or, once it has left the broker, what the history keeps of it; ``None`` if both know none.

    Raises:
        BrokerUnavailable: the broker did not answer.
        ResultStoreUnavailable: the store that has its result did not answer. Also of a job that the history keeps.
        django.db.DatabaseError: the broker has no record, and the database did not answer.
    """
    found = with_result(find_job(job_id))
    if found is not None or not is_message_id(job_id):
        return found
    row = find(job_id)
    # One that is to be retried has not ended: the broker would know it.
    return None if row is None or row.state not in ENDED else with_result(record_of_row(row))


def record_of_row(row: JobRow) -> JobRecord:
    """Return what a row of the history says as a record; ``with_result`` adds a result that a store keeps."""
    return JobRecord(
        id=row.job_id,
        actor=row.actor,
        queue=row.queue,
        state=row.state,
        reason=row.reason or None,
        attempts=row.attempts,
        progress=None,
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        next_attempt_at=None,
        result=read_json(row.result),
        error=error_of(row) if row.state == "dead" else None,
        owner=row.owner or "",
        cancel_requested=False,
        kept_in=row.kept_in or "",
    )


def visible_job(job_id: str, *, owner: str, operator: bool) -> JobRecord | None:
    """Return a job's record if the caller is its owner or an operator, otherwise ``None``."""
    job = find_known(job_id)
    if job is None or not (operator or (owner and job.owner == owner)):
        return None
    return job


def find_untracked(job_id: str) -> Message[Any] | None:
    """Return the message of an unfinished job without a record, as after ``track=False``, or ``None``.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    return find_unrecorded(facilities(), job_id) if is_message_id(job_id) else None


def visible_untracked(job_id: str, *, owner: str, operator: bool) -> bool:
    """Return whether there is such a job, and the caller is its owner or an operator."""
    message = find_untracked(job_id)
    return message is not None and bool(operator or (owner and message.options.get("owner") == owner))
