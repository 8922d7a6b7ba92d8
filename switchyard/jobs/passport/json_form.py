"""A job's passport as JSON, for tickets and scripts."""

from __future__ import annotations

from typing import Any

from switchyard.api.responses import iso_time
from switchyard.jobs.passport.attempts import Attempt
from switchyard.jobs.passport.reading import Passport


def as_json(job: Passport, *, arguments: bool) -> dict[str, Any]:
    """Return what the page shows; times are ISO 8601 in UTC.

    Args:
        arguments: Whether the user may view arguments; hidden ones are ``None``, as are those too long to be kept.
    """
    return {
        "id": job.id,
        "actor": job.actor,
        "queue": job.queue,
        "state": job.state,
        "reason": job.reason or None,
        "owner": job.owner or None,
        "tags": list(job.tags),
        "parent": job.parent or None,
        "origin": dict(job.origin),
        "release": job.release or None,
        "worker": job.worker or None,
        "time_limit_ms": job.limit_ms,
        "enqueued_at": iso_time(job.enqueued_at),
        "due_at": iso_time(job.due_at),
        "started_at": iso_time(job.started_at),
        "finished_at": iso_time(job.finished_at),
        "arguments": job.arguments if arguments else None,
        "attempts": [_attempt(each) for each in job.attempts],
        "dead_letter": job.letter.state if job.letter is not None else None,
    }


def _attempt(each: Attempt) -> dict[str, Any]:
    return {
        "number": each.number,
        "requeues_before": each.generation,
        "state": each.state,
        "started_at": iso_time(each.started_at),
        "finished_at": iso_time(each.finished_at),
        "run_ms": each.run_ms,
        "error": f"{each.error_type}: {each.error_message}" if each.error_type else None,
        "fingerprint": each.fingerprint or None,
        "worker": each.worker or None,
        "release": each.release or None,
    }
