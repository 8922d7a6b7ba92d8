"""Job records as JSON for the API, the command line and the events."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.api.responses import iso_time
from switchyard.broker.stores.job_records import JobRecord
from switchyard.jobs.results import is_result_name, safe_name
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import readable

LONGEST_EXCERPT = 80


def shown_arguments(actor_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a message by name, those hidden that its actor redacts or whose name is a secret's."""
    message = {"actor_name": actor_name, "args": list(args), "kwargs": dict(kwargs), "options": {}}
    found: dict[str, Any] = readable(message)["arguments"]
    return found


def stored_arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments in a row of the history, by name; ``None`` when they were cut, and are no JSON."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def excerpt(arguments: Mapping[str, Any] | None, longest: int = LONGEST_EXCERPT) -> str:
    """Return arguments on one line: ``customer_id="acme", pages=3``; cut after ``longest`` characters."""
    text = ", ".join(f"{name}={written(value)}" for name, value in (arguments or {}).items())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def written(value: Any) -> str:
    """Return a value as JSON; a hidden one as its mark."""
    return HIDDEN if value == HIDDEN else json.dumps(value, ensure_ascii=False, default=str)


_CONTENT_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+(; ?[ -~]+)?", re.ASCII)
TIMES = ("enqueued_at", "started_at", "finished_at", "next_attempt_at")


def job_body(job: JobRecord, *, result_url: str | None) -> dict[str, Any]:
    """Return a job as the API shows it.

    Args:
        result_url: URL of the job's file, if it has one (see ``result_file``).
    """
    return {
        "id": job.id,
        "actor": job.actor,
        "queue": job.queue,
        "state": job.state,
        "reason": job.reason,
        "attempts": job.attempts,
        "progress": job.progress,
        "enqueued_at": iso_time(job.enqueued_at),
        "started_at": iso_time(job.started_at),
        "finished_at": iso_time(job.finished_at),
        "result": public_result(job.result),
        "result_url": result_url,
        "error": job.error,
        "next_attempt_at": iso_time(job.next_attempt_at),
    }


def result_file(job: JobRecord) -> dict[str, Any] | None:
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


def snapshot(job: JobRecord) -> dict[str, Any]:
    """Return the data of a job's ``state`` event."""
    data: dict[str, Any] = {"state": job.state, "attempts": job.attempts}
    data |= {name: shown for name in TIMES if (shown := iso_time(getattr(job, name))) is not None}
    optional = {"reason": job.reason, "progress": job.progress, "error": job.error}
    return data | {name: value for name, value in optional.items() if value is not None}
