"""A job's passport: everything that broker, history and dead letters know of it, put together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError

from switchyard.api.responses import iso_time
from switchyard.broker.clock import now_ms
from switchyard.broker.errors import BrokerError, ResultStoreUnavailable
from switchyard.broker.stores.job_records import ENDED, JobRecord
from switchyard.console.formatting import as_time
from switchyard.dead_letters.models import DeadLetter
from switchyard.history import queries as history
from switchyard.history.models import AttemptRow, JobRow
from switchyard.jobs.presentation import public_result, shown_arguments, stored_arguments
from switchyard.jobs.queries import find_job, holder_of, limit_of, record_of_row, with_result
from switchyard.loggers import get_logger


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a job. Times in ms since the epoch; ``finished_at`` is ``None`` while it runs.

    Args:
        number: Attempts started since the last requeue, this one included.
        generation: Times that the job was requeued before.
        state: How it ended, or ``running``.
    """

    number: int
    generation: int
    state: str
    started_at: int | None
    finished_at: int | None
    error_type: str = ""
    error_message: str = ""
    fingerprint: str = ""
    worker: str = ""
    release: str = ""
    logs: str = ""

    @property
    def run_ms(self) -> int | None:
        """Time for which it ran, or runs."""
        if self.started_at is None:
            return None
        return max((now_ms() if self.finished_at is None else self.finished_at) - self.started_at, 0)

    started = as_time("started_at")
    finished = as_time("finished_at")


def attempts_of(record: JobRecord | None, row: JobRow | None, stored: list[AttemptRow]) -> list[Attempt]:
    """Return the attempts of a job, in order: those that the history keeps, and the last one as it stands."""
    found = {
        (each.generation, each.attempt): Attempt(
            number=each.attempt,
            generation=each.generation,
            state=each.state,
            started_at=each.started_at,
            finished_at=each.finished_at,
            error_type=each.error_type,
            error_message=each.error_message,
            fingerprint=each.fingerprint,
            worker=worker_of(each.worker),
            release=each.release,
            logs=each.logs,
        )
        for each in stored
    }
    if row is not None:
        _add_last(found, row, row.error_type, row.error_message, row.fingerprint or "")
    if record is not None:
        error = record.error or {"type": "", "message": ""}
        _add_last(found, record, error["type"], error["message"])
    return [found[place] for place in sorted(found)]


def _add_last(
    found: dict[tuple[int, int], Attempt], known: JobRecord | JobRow, error_type: str, text: str, fingerprint: str = ""
) -> None:
    """Add the last attempt of a job, unless it has not started or is there."""
    if known.started_at is None or known.state in ("scheduled", "queued") or known.attempts <= 0:
        return
    failed = known.state in ("dead", "retrying")
    last = Attempt(
        number=known.attempts,
        generation=known.generation,
        state=known.state,
        started_at=known.started_at,
        finished_at=known.finished_at,
        error_type=error_type if failed else "",
        error_message=text if failed else "",
        fingerprint=fingerprint if failed else "",
        worker=worker_of(known.worker),
        release=known.release,
    )
    found.setdefault((last.generation, last.number), last)


def worker_of(name: str) -> str:
    """Return a worker's name as pages show it."""
    return holder_of(f"{name}/live").name if name else ""


log = get_logger(__name__)
# Classes in room.css.
TONES = {
    "scheduled": "sy-calm",
    "queued": "sy-calm",
    "running": "sy-ok",
    "retrying": "sy-warn",
    "succeeded": "sy-ok",
    "cancelled": "sy-calm",
    "expired": "sy-warn",
    "dead": "sy-bad",
}


@dataclass(frozen=True, slots=True)
class Passport:
    """A job with all that is known of it. Times in ms since the epoch.

    Args:
        arguments: By name, without redacted values; ``None`` when they were too long to be kept.
        result: Return value as indented JSON; "" for none.
        history_away: The database did not answer: attempts and children are incomplete.
    """

    id: str
    actor: str
    queue: str
    state: str
    reason: str
    owner: str
    attempts_count: int
    enqueued_at: int | None
    due_at: int | None
    started_at: int | None
    finished_at: int | None
    limit_ms: int | None
    cancel_requested: bool
    record: JobRecord | None
    row: JobRow | None
    arguments: Mapping[str, Any] | None
    result: str
    progress: Mapping[str, Any] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)
    parent: str = ""
    tags: tuple[str, ...] = ()
    release: str = ""
    worker: str = ""
    attempts: tuple[Attempt, ...] = ()
    children: tuple[JobRow, ...] = ()
    letter: DeadLetter | None = None
    history_away: bool = False

    @property
    def ended(self) -> bool:
        """Whether the job has reached its last state."""
        return self.state in ENDED

    @property
    def tone(self) -> str:
        """CSS class of the state."""
        return TONES.get(self.state, "sy-calm")

    @property
    def percent(self) -> int | None:
        """Progress, 0 to 100; ``None`` if none was reported."""
        total = int(self.progress.get("total") or 0)
        return min(100 * int(self.progress.get("done") or 0) // total, 100) if total > 0 else None

    @property
    def logs(self) -> list[Attempt]:
        """The attempts with log lines."""
        return [attempt for attempt in self.attempts if attempt.logs]

    enqueued = as_time("enqueued_at")
    due = as_time("due_at")


def passport_of(job_id: str) -> Passport | None:
    """Return a job's passport, or ``None`` when neither broker nor history knows the id.

    Raises:
        BrokerUnavailable: the broker did not answer, and the history has not got the job.
    """
    away: BrokerError | None = None
    record: JobRecord | None = None
    try:
        record = find_job(job_id)
        with contextlib.suppress(ResultStoreUnavailable):  # the page shows the job without its result
            record = with_result(record)
    except BrokerError as error:
        away = error
    row, attempts, children, letter, history_away = _stored(job_id)
    known = record if record is not None else row
    if known is None:
        if away is not None:
            raise away
        return None
    return Passport(
        id=job_id,
        actor=known.actor,
        queue=known.queue,
        state=known.state,
        reason=known.reason or "",
        owner=known.owner or "",
        attempts_count=known.attempts,
        enqueued_at=known.enqueued_at or (row.enqueued_at if row is not None else None),
        due_at=(record.next_attempt_at or record.due_at) if record is not None else None,
        started_at=known.started_at,
        finished_at=known.finished_at,
        limit_ms=limit_of(known.actor, known.queue, {}),
        cancel_requested=record is not None and record.cancel_requested,
        record=record,
        row=row,
        arguments=_arguments(record, row, letter),
        result=_result(record, row),
        progress=(record.progress if record is not None else None) or {},
        origin=_origin(record, row),
        parent=known.parent or "",
        tags=tuple(known.tags),
        release=known.release or (row.release if row is not None else ""),
        worker=worker_of(known.worker or (row.worker if row is not None else "")),
        attempts=tuple(attempts_of(record, row, attempts)),
        children=tuple(children),
        letter=letter,
        history_away=history_away,
    )


def _stored(job_id: str) -> tuple[JobRow | None, list[AttemptRow], list[JobRow], DeadLetter | None, bool]:
    try:
        return (
            history.find(job_id),
            history.attempts(job_id),
            history.children(job_id),
            DeadLetter.objects.filter(message_id=job_id).first(),
            False,
        )
    except DatabaseError as error:
        log.warning("a job's page lacks the history: the database does not answer", error=str(error))
        return None, [], [], None, True


def _arguments(record: JobRecord | None, row: JobRow | None, letter: DeadLetter | None) -> Mapping[str, Any] | None:
    if record is not None and (record.args or record.kwargs):
        return shown_arguments(record.actor, record.args, record.kwargs)
    if row is not None and row.arguments:
        return stored_arguments(row.arguments)
    if letter is not None and isinstance(letter.payload, dict) and isinstance(letter.payload.get("arguments"), dict):
        found: dict[str, Any] = letter.payload["arguments"]
        return found
    return {}


def _result(record: JobRecord | None, row: JobRow | None) -> str:
    found = record.result if record is not None else _stored_result(row)
    if found is None and row is not None and row.result:
        try:
            found = json.loads(row.result)
        except (ValueError, RecursionError):
            return row.result
    found = public_result(found)
    return "" if found is None else json.dumps(found, indent=2, ensure_ascii=False)


def _stored_result(row: JobRow | None) -> Any:
    """Return the result that a store keeps for a job that has left the broker."""
    if row is None or not row.kept_in:
        return None
    with contextlib.suppress(ResultStoreUnavailable):
        known = with_result(record_of_row(row))
        return None if known is None else known.result
    return None


def _origin(record: JobRecord | None, row: JobRow | None) -> dict[str, str]:
    found = record.origin if record is not None else {}
    if not found and row is not None:
        found = {"request": row.request_id, "user": row.user, "schedule": row.schedule}
    return {str(name): str(value) for name, value in found.items() if value}


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
