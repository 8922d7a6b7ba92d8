"""One job in a list, whether it comes from the broker or from the history, and a page of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from switchyard.api.responses import iso_time
from switchyard.broker.clock import now_ms
from switchyard.broker.stores.job_records import JobRecord
from switchyard.console.times import as_time
from switchyard.history.models import JobRow
from switchyard.jobs.shown_arguments import excerpt, shown_arguments, stored_arguments

LONGEST_ERROR = 120
LIMIT = 50
NULL_IF_EMPTY = ("reason", "error", "fingerprint", "worker", "release", "parent")
TIMES = ("enqueued_at", "due_at", "started_at", "finished_at")


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job as lists show it. Times in ms since the epoch.

    Args:
        at: Time that orders the list: of enqueueing while the job has not ended, then of its end or its failure.
        is_live: It has not ended, and comes from the broker.
        arguments: Without redacted values; ``None`` when they may not be viewed or were too long to be kept.
    """

    id: str
    state: str
    actor: str
    queue: str
    at: int
    is_live: bool
    owner: str = ""
    tags: tuple[str, ...] = ()
    attempts: int = 0
    reason: str = ""
    error: str = ""
    fingerprint: str = ""
    enqueued_at: int | None = None
    due_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    wait_ms: int | None = None
    run_ms: int | None = None
    worker: str = ""
    release: str = ""
    parent: str = ""
    progress: Mapping[str, Any] | None = None
    arguments: Mapping[str, Any] | None = None

    shown_at = as_time("at")
    due = as_time("due_at")

    @property
    def excerpt(self) -> str:
        """The arguments on one line."""
        return excerpt(self.arguments)

    @property
    def ran_ms(self) -> int | None:
        """Time for which it ran, or runs."""
        if self.state == "running" and self.started_at is not None:
            return max(now_ms() - self.started_at, 0)
        return self.run_ms

    def as_json(self) -> dict[str, Any]:
        """Return the form of the API and of ``manage.py switchyard jobs list --json``."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("at", "is_live")}
        found |= {name: found[name] or None for name in NULL_IF_EMPTY}
        found |= {name: iso_time(found[name]) for name in TIMES}
        return found | {"tags": list(self.tags), "run_ms": self.ran_ms}


@dataclass(frozen=True, slots=True)
class JobsPage:
    """A page of the list.

    Args:
        after: Cursor of the next page; "" at the end of the list.
        cut: Queues that hold more messages than were looked through.
        away: Queues that are away or start nothing: what has not ended there is missing.
        broker_away: What has not ended is missing, because the broker did not answer.
        history_away: What has ended is missing, because the database did not answer.
        broker_error: The broker's error, with its remedy; "" without one.
        by_due_time: The next to be due is first.
        sorted_from: Time (ms since the epoch) of the oldest job that a sorted list compared, where more would match.
    """

    lines: tuple[JobLine, ...]
    after: str
    cut: tuple[str, ...] = ()
    away: tuple[str, ...] = ()
    broker_away: bool = False
    history_away: bool = False
    broker_error: str = ""
    by_due_time: bool = False
    sorted_from: int | None = None


def line_of_record(record: JobRecord, *, arguments: bool) -> JobLine:
    """Return a job's record as a line."""
    error = f"{record.error['type']}: {record.error['message']}"[:LONGEST_ERROR] if record.error else ""
    ran_ms = None
    if record.started_at is not None and record.finished_at is not None:
        ran_ms = max(record.finished_at - record.started_at, 0)
    return JobLine(
        id=record.id,
        state=record.state,
        actor=record.actor,
        queue=record.queue,
        at=(record.finished_at if record.ended else None) or record.enqueued_at or 0,
        is_live=not record.ended,
        owner=record.owner or "",
        tags=tuple(str(tag) for tag in record.tags),
        attempts=record.attempts,
        reason=record.reason or "",
        error=error,
        enqueued_at=record.enqueued_at,
        due_at=record.next_attempt_at or record.due_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        wait_ms=_waited_ms(record),
        run_ms=ran_ms,
        progress=record.progress,
        arguments=shown_arguments(record.actor, record.args, record.kwargs) if arguments else None,
    )


def _waited_ms(record: JobRecord) -> int | None:
    """Return for how long a job waited for its first start after it was ready; ``None`` of one that was sent again."""
    ready_at = record.due_at or record.enqueued_at
    if record.started_at is None or ready_at is None or record.attempts > 1 or record.generation:
        return None
    return max(record.started_at - ready_at, 0)


def line_of_row(row: JobRow, *, at: int, arguments: bool) -> JobLine:
    """Return a row of the history as a line."""
    error = f"{row.error_type}: {row.error_message}" if row.error_type else ""
    return JobLine(
        id=row.job_id,
        state=row.state,
        actor=row.actor,
        queue=row.queue,
        at=at,
        is_live=False,
        owner=row.owner or "",
        tags=tuple(str(tag) for tag in row.tags) if isinstance(row.tags, list) else (),
        attempts=row.attempts,
        reason=row.reason,
        error=error[:LONGEST_ERROR],
        fingerprint=row.fingerprint or "",
        enqueued_at=row.enqueued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        wait_ms=row.wait_ms,
        run_ms=row.run_ms,
        worker=row.worker,
        release=row.release,
        parent=row.parent or "",
        arguments=stored_arguments(row.arguments) if arguments else None,
    )
