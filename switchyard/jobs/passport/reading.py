"""A job's passport: the job with its attempts, its children and its dead letter."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from django.db import DatabaseError

from switchyard.broker.errors import BrokerError, ResultStoreUnavailable
from switchyard.broker.stores.job_record import Job
from switchyard.dead_letters.models import DeadLetter
from switchyard.history import queries as history
from switchyard.jobs.presentation import arguments_of, job_json, run_json
from switchyard.jobs.queries import find_job, is_message_id, job_in_outbox, limit_of, stands_for, with_result
from switchyard.loggers import get_logger

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
FAILED: Final = ("retrying", "dead")
# Fields that the history adds where the record lacks them: that of a dead letter has no attempt.
ADDED: Final = ("enqueued_at", "result", "kept_in", "arguments", "origin", "worker", "release")


@dataclass(frozen=True, slots=True)
class Passport:
    """A job with all that is known of it.

    Args:
        arguments: By name, without redacted values; ``None`` when they were too long to be kept.
        attempts: The job as each attempt left it, the last one as it stands.
        stands_for: Jobs that were not enqueued because this one held their unique key, the last five.
        history_away: The database could not be read: attempts and children are incomplete.
    """

    job: Job
    arguments: Mapping[str, Any] | None
    attempts: Sequence[Job]
    children: Sequence[Job]
    letter: DeadLetter | None
    stands_for: Sequence[str]
    history_away: bool

    @property
    def percent(self) -> int | None:
        """Progress, 0 to 100; ``None`` if none was reported."""
        progress = self.job.progress or {}
        total = int(progress.get("total") or 0)
        return min(100 * int(progress.get("done") or 0) // total, 100) if total > 0 else None

    @property
    def logs(self) -> list[Job]:
        """The attempts with log lines."""
        return [attempt for attempt in self.attempts if attempt.logs]


def passport_of(job_id: str) -> Passport | None:
    """Return a job's passport, or ``None`` when neither broker nor history knows the id, or it is none.

    Raises:
        BrokerUnavailable: the broker did not answer, and the history has not got the job.
    """
    if not is_message_id(job_id):
        return None
    away: BrokerError | None = None
    record: Job | None = None
    try:
        record = find_job(job_id)
    except BrokerError as error:
        away = error
    row: Job | None = None
    attempts: list[Job] = []
    children: list[Job] = []
    letter, history_away = None, False
    try:
        if (stored := history.find(job_id)) is not None:
            row = history.job_of_row(stored)
        attempts, children = history.attempts(job_id), history.children(job_id)
        letter = DeadLetter.objects.filter(message_id=job_id).first()
    except DatabaseError as error:
        log.warning("a job's page lacks the history: the database cannot be read", error=str(error))
        history_away = True
    job = record or row
    if record is not None and row is not None:
        job = replace(record, **{name: getattr(row, name) for name in ADDED if not getattr(record, name)})
    if job is None and not history_away:
        job = job_in_outbox(job_id)
    if job is None:
        if away is not None:
            raise away
        return None
    with contextlib.suppress(ResultStoreUnavailable):  # the page shows the job without its result
        job = with_result(job) or job
    arguments = arguments_of(job)
    if arguments == {} and letter is not None and isinstance(letter.payload, dict):
        found = letter.payload.get("arguments")
        arguments = found if isinstance(found, dict) else {}
    return Passport(
        job=job,
        arguments=arguments,
        attempts=attempts_of(attempts, row, record),
        children=children,
        letter=letter,
        stands_for=stands_for(job),
        history_away=history_away,
    )


def attempts_of(stored: Sequence[Job], *known: Job | None) -> tuple[Job, ...]:
    """Return the attempts of a job, in order: those that the history keeps, and the last one as it stands."""
    found = {(each.generation, each.attempts): each for each in stored}
    for job in known:
        # A job that has not started has no attempt.
        if job is None or job.started_at is None or job.state in ("scheduled", "queued") or job.attempts <= 0:
            continue
        last = job if job.state in FAILED else replace(job, error=None, fingerprint="")
        found.setdefault((job.generation, job.attempts), last)
    return tuple(found[place] for place in sorted(found))


def passport_json(known: Passport, *, arguments: bool) -> dict[str, Any]:
    """Return the JSON form of a job with its attempts, as ``runs``, its dead letter and its time limit.

    Args:
        arguments: Whether its reader may view arguments; hidden ones are ``None``, as are those too long to be kept.
    """
    return {
        **job_json(known.job),
        "stands_for": list(known.stands_for),
        "arguments": known.arguments if arguments else None,
        "time_limit_ms": limit_of(known.job),
        "dead_letter": known.letter.state if known.letter is not None else None,
        "runs": [run_json(each) for each in known.attempts],
    }
