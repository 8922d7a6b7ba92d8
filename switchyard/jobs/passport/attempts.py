"""Attempts of a job, from the history and from its record."""

from __future__ import annotations

from dataclasses import dataclass

from switchyard.broker.clock import now_ms
from switchyard.broker.stores.job_records import JobRecord
from switchyard.console.times import as_time
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
