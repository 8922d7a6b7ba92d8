"""Attempts of a job, from the history and from its record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from switchyard.broker.clock import datetime_of, now_ms
from switchyard.broker.stores.job_records import JobRecord
from switchyard.history.models import AttemptRow, JobRow
from switchyard.jobs.running import holder_of


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

    @property
    def started(self) -> datetime | None:
        """``started_at`` as a time in UTC."""
        return None if self.started_at is None else datetime_of(self.started_at)

    @property
    def finished(self) -> datetime | None:
        """``finished_at`` as a time in UTC."""
        return None if self.finished_at is None else datetime_of(self.finished_at)


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
    for last in (_last_of_row(row), _last_of_record(record)):
        if last is not None and last.number > 0:
            found.setdefault((last.generation, last.number), last)
    return [found[place] for place in sorted(found)]


def _last_of_row(row: JobRow | None) -> Attempt | None:
    if row is None or row.started_at is None:
        return None
    failed = row.state in ("dead", "retrying")
    return Attempt(
        number=row.attempts,
        generation=row.generation,
        state=row.state,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error_type=row.error_type if failed else "",
        error_message=row.error_message if failed else "",
        fingerprint=(row.fingerprint or "") if failed else "",
        worker=worker_of(row.worker),
        release=row.release,
    )


def _last_of_record(record: JobRecord | None) -> Attempt | None:
    if record is None or record.started_at is None or record.state in ("scheduled", "queued"):
        return None
    error = record.error if record.state in ("dead", "retrying") else None
    return Attempt(
        number=record.attempts,
        generation=record.generation,
        state=record.state,
        started_at=record.started_at,
        finished_at=record.finished_at,
        error_type=error["type"] if error else "",
        error_message=error["message"] if error else "",
        worker=worker_of(record.worker),
        release=record.release,
    )


def worker_of(name: str) -> str:
    """Return a worker's name as pages show it."""
    return holder_of(f"{name}/live").name if name else ""
