"""A job as JSON and as texts: for the API, events, pages and commands."""

import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final

import dramatiq
from django.db import DatabaseError
from dramatiq.message import Message

from switchyard.api.responses import iso_time
from switchyard.broker.errors import BrokerError, ResultStoreUnavailable
from switchyard.broker.stores.job_record import Job
from switchyard.console.formatting import cut
from switchyard.dead_letters.models import DeadLetter
from switchyard.history import queries as history
from switchyard.jobs.queries import find_job, is_message_id, job_in_outbox, limit_of, stands_for, with_result
from switchyard.jobs.results import is_result_name, safe_name
from switchyard.loggers import get_logger
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import shown_arguments

LONGEST_EXCERPT, LONGEST_ERROR = 80, 120


def arguments_of(job: Job) -> Mapping[str, Any] | None:
    """Return a job's arguments by name, without redacted values; ``None`` when they were too long to be kept."""
    return shown_arguments(job.actor, job.args, job.kwargs) if job.args or job.kwargs else job.arguments


def arguments_line(job: Job) -> str:
    """Return a job's arguments on one line: ``customer_id="acme", pages=3``; cut after 80 characters, "" for none."""
    return _line(arguments_of(job))


def message_line(message: Message[Any]) -> str:
    """Return the arguments of a message as those of a job."""
    return _line(shown_arguments(message.actor_name, message.args, message.kwargs))


def _line(arguments: Mapping[str, Any] | None) -> str:
    return cut(", ".join(f"{name}={written(value)}" for name, value in (arguments or {}).items()), LONGEST_EXCERPT)


def written(value: Any) -> str:
    """Return a value as JSON; a hidden one as its mark."""
    return HIDDEN if value == HIDDEN else json.dumps(value, ensure_ascii=False, default=str)


# Outcome of an act on one job, by the answers of ``services.request_cancel`` and ``start_now``, after its name.
OUTCOMES: Final = {
    "cancelled": "was cancelled and will not start",
    "asked": "runs and stops within 10 seconds",
    "due": "starts as soon as a slot is free",
    "waiting": "waits or runs already",
    "held": "is held by a rate limit, by a pause, or until a worker knows its actor, and stays so",
    "ended": "had ended already",
    "unknown": "is not known any longer",
}
GOOD_OUTCOMES: Final = ("cancelled", "asked", "due")
_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[ -~]+)?", re.ASCII)
TIMES: Final = ("enqueued_at", "started_at", "finished_at", "next_attempt_at", "failed_at")
# Texts that are "" where they are not known: of a message that something else wrote.
NEVER_NULL: Final = frozenset({"id", "actor", "queue", "state"})
INTERNAL: Final = ("args", "kwargs", "arguments", "due_at", "options", "body", "kept_in", "logs", "silent_ms", "at")
# Fields of an attempt; the others are those of its job.
RUN: Final = (
    "state", "reason", "attempts", "generation", "started_at", "finished_at", "run_ms", "error", "fingerprint", "lane",
    "pool", "worker", "release",
)  # fmt: skip


def job_json(job: Job, *, arguments: bool = False, result_url: str | None = None) -> dict[str, Any]:
    """Return the JSON form of a job: of the API, of events, pages and commands.

    Times are ISO 8601 in UTC, durations in ms; ``None`` stands for what is not known or has not happened.

    Args:
        arguments: Whether its reader may view arguments; hidden ones are ``None``, as are those too long to be kept.
        result_url: URL of the job's file, if it has one (see ``result_file``).
    """
    shown = {each.name: getattr(job, each.name) for each in fields(job) if each.name not in INTERNAL}
    shown = {name: None if value == "" and name not in NEVER_NULL else value for name, value in shown.items()}
    return shown | {
        **{name: iso_time(shown[name]) for name in TIMES},
        "result": public_result(job.result),
        "result_url": result_url,
        "tags": list(job.tags),
        "origin": {str(name): str(value) for name, value in job.origin.items() if value},
        "run_ms": job.run_ms,
        "worker": job.holder.name or None,
        "arguments": arguments_of(job) if arguments else None,
        "stands_for": [],  # asked for a single job only
    }


def run_json(attempt: Job) -> dict[str, Any]:
    """Return the JSON form of one attempt of a job: the fields that are the attempt's own, and its log lines."""
    shown = job_json(attempt)
    return {name: shown[name] for name in RUN} | {"logs": attempt.logs or None}


def limit_words(reason: str, actor: str) -> str:
    """Return a reason for which messages are held, with the actor's limit where it has one: ``rate limit, 10/m``."""
    declared = dramatiq.get_broker().actors.get(actor)
    limit = declared.options.get(reason) if declared is not None else None
    words = reason.replace("_", " ")
    return f"{words}, {limit}" if isinstance(limit, str | int) else words


def error_line(job: Job) -> str:
    """Return why the last attempt failed, at most 120 characters; "" for a job without a failure."""
    return f"{job.error['type']}: {job.error['message']}"[:LONGEST_ERROR] if job.error else ""


def result_file(job: Job) -> dict[str, Any] | None:
    """Return the description of a succeeded job's file, or ``None``.

    ``results.save_file`` made it, and the actor may have changed it since: name and type are fit for headers.
    """
    result = job.result
    if job.state != "succeeded" or not isinstance(result, dict) or not is_result_name(result.get("file")):
        return None
    content_type = str(result.get("content_type"))
    usable = _CONTENT_TYPE.fullmatch(content_type) is not None
    return result | {
        "filename": safe_name(str(result.get("filename") or "")),
        "content_type": content_type if usable else "application/octet-stream",
    }


def public_result(result: Any) -> Any:
    """Return a result without the name it is stored under, which stays internal."""
    if isinstance(result, dict) and is_result_name(result.get("file")):
        return {name: value for name, value in result.items() if name != "file"}
    return result


def snapshot(job: Job) -> dict[str, Any]:
    """Return the data of a job's ``state`` event: its JSON form, without what is not known or has not happened."""
    return {name: value for name, value in job_json(job).items() if value not in (None, [], {})}


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
