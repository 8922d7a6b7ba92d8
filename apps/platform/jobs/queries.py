"""Reads of job records."""

from __future__ import annotations

import re
from typing import Any

from dramatiq.message import Message

from broker.admin.cancel import find_unrecorded
from broker.interface import facilities
from broker.stores.job_records import JobRecord

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_job_id(text: str) -> bool:
    """Return whether a text has the form of a job id: a UUID in lower case."""
    return _ID.fullmatch(text) is not None


def find_job(job_id: str) -> JobRecord | None:
    """Return a job's record, or ``None`` if the id is unknown, malformed or expired.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    if not is_job_id(job_id):
        return None
    return facilities().records.read(job_id)


def visible_job(job_id: str, *, owner: str, operator: bool) -> JobRecord | None:
    """Return a job's record if the caller is its owner or an operator, otherwise ``None``."""
    job = find_job(job_id)
    if job is None or not (operator or (owner and job.owner == owner)):
        return None
    return job


def find_untracked(job_id: str) -> Message[Any] | None:
    """Return the message of an unfinished job without a record, as after ``track=False``, or ``None``.

    Raises:
        BrokerUnavailable: the broker did not answer.
    """
    return find_unrecorded(facilities(), job_id) if is_job_id(job_id) else None


def visible_untracked(job_id: str, *, owner: str, operator: bool) -> bool:
    """Return whether there is such a job, and the caller is its owner or an operator."""
    message = find_untracked(job_id)
    return message is not None and bool(operator or (owner and message.options.get("owner") == owner))
