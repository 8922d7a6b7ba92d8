"""Columns of the rows that one ended attempt becomes: texts cut to their columns, arguments redacted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from switchyard.broker.queue.codec import LARGEST
from switchyard.broker.stores.ended_jobs import EndedJob
from switchyard.broker.stores.job_records import STEPS, sequence
from switchyard.database_text import storable
from switchyard.history.search_values import TAG, search_text, searched_names
from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import readable

LARGEST_ARGUMENTS_BYTES: Final = 1_024
LARGEST_RESULT_BYTES: Final = 1_024
LARGEST_NUMBER: Final = 2**31 - 1
FAILED: Final = frozenset({"dead", "expired", "retrying"})


class Rows(NamedTuple):
    """Columns by name of the rows that one ended attempt becomes.

    Args:
        attempt: ``None`` for an attempt that succeeded and keeps no log lines.
        values: Pairs of name and value that the job is found by.
    """

    job: dict[str, Any]
    attempt: dict[str, Any] | None
    values: list[tuple[str, str]]


def rows_of(ended: EndedJob, queue: str) -> Rows:
    """Return the rows of an ended attempt of a queue.

    Raises:
        ValueError: it has no id, or no state that is known.
    """
    if not ended.id or len(ended.id) > 200 or ended.state not in STEPS:
        raise ValueError(f"state {ended.state!r:.50}, an id of {len(ended.id)} characters")
    message = ended.message()
    options = _of_type(dict, message.get("options"))
    shown = _shown(message)
    job = _job(ended, queue, message, options) | {"arguments": _cut_json(shown)}
    attempt = _attempt(ended) if ended.error is not None or ended.logs else None
    return Rows(job, attempt, list(dict.fromkeys(_values(shown, job["actor"], options))))


def _job(ended: EndedJob, queue: str, message: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    origin = _of_type(dict, options.get("origin"))
    enqueued_at = _time(options.get("enqueued_at")) or _time(message.get("sent_at"))
    started_at, finished_at = _time(ended.started_at), _time(ended.finished_at) or 0
    ready_at = _time(options.get("due_at")) or enqueued_at
    failed = ended.state in FAILED
    return _where_it_ran(ended) | {
        "job_id": storable(ended.id),
        "sequence": sequence(generation=_number(ended.generation), attempts=_number(ended.attempt), state=ended.state),
        "state": ended.state,
        "actor": _text(message.get("actor"), 255),
        "queue": queue,
        "owner": _text(options.get("owner"), 200) or None,
        "attempts": _number(ended.attempt),
        "generation": _number(ended.generation),
        "enqueued_at": enqueued_at,
        "not_succeeded_at": None if ended.state == "succeeded" else finished_at,
        "wait_ms": None if started_at is None or ready_at is None else max(0, started_at - ready_at),
        "run_ms": None if started_at is None else max(0, finished_at - started_at),
        "failed_at": finished_at if failed else None,
        "parent": _text(options.get("parent"), 200) or None,
        "request_id": _text(origin.get("request"), 200),
        "user": _text(origin.get("user"), 200),
        "schedule": _text(origin.get("schedule"), 255),
        "tags": json.dumps(_tags(options)),
        "result": storable(ended.result) if ended.result and len(ended.result) <= LARGEST_RESULT_BYTES else "",
        "kept_in": _text(ended.kept_in, 255) or None,
    }


def _attempt(ended: EndedJob) -> dict[str, Any]:
    return _where_it_ran(ended) | {
        "job_id": storable(ended.id),
        "generation": _number(ended.generation),
        "attempt": _number(ended.attempt),
        "state": ended.state,
        "fingerprint": "" if ended.error is None else _text(ended.error.fingerprint, 64),
        "logs": storable(ended.logs or ""),
    }


def _where_it_ran(ended: EndedJob) -> dict[str, Any]:
    """Return the columns that a job and an attempt have in common."""
    error = ended.error
    return {
        "reason": _text(ended.reason, 32),
        "lane": _text(ended.lane, 80),
        "pool": _text(ended.pool, 64),
        "worker": _text(ended.worker, 255),
        "release": _text(ended.release, 64),
        "started_at": _time(ended.started_at),
        "finished_at": _time(ended.finished_at) or 0,
        "error_type": "" if error is None else _text(error.type, 255),
        "error_message": "" if error is None else _text(error.message, 500),
        "fingerprint": None if error is None else _text(error.fingerprint, 64) or None,
    }


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments by name, those hidden that the actor hides; all of an unknown actor."""
    args, kwargs = _of_type(list, message.get("args")), _of_type(dict, message.get("kwargs"))
    if not args and not kwargs:
        return {}
    called = {"actor_name": str(message.get("actor", "")), "args": args, "kwargs": kwargs, "options": {}}
    arguments: dict[str, Any] = readable(called)["arguments"]
    return arguments


def _cut_json(shown: dict[str, Any]) -> str:
    if not shown:
        return ""
    raw = json.dumps(shown, ensure_ascii=False, default=repr).encode()
    if len(raw) <= LARGEST_ARGUMENTS_BYTES:
        return str(raw, "utf-8")
    return str(raw[: LARGEST_ARGUMENTS_BYTES - 3], "utf-8", "ignore") + "…"


def _values(shown: dict[str, Any], actor: str, options: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in searched_names(actor):
        value = shown.get(name)
        if value != HIDDEN and (text := search_text(value)) is not None:
            yield _text(name, 100), text
    for tag in _tags(options):
        yield TAG, tag


def _tags(options: dict[str, Any]) -> list[str]:
    return [_text(tag, 64) for tag in _of_type(list, options.get("tags"))[:10] if isinstance(tag, str)]


def _of_type(kind: type[Any], value: Any) -> Any:
    """Return a value of a type, or an empty one of it: foreign clients write messages as well."""
    return value if isinstance(value, kind) else kind()


def _text(value: Any, longest: int) -> str:
    return "" if value is None else storable(str(value))[:longest]


def _number(value: int) -> int:
    return min(max(value, 0), LARGEST_NUMBER)


def _time(value: Any) -> int | None:
    return value if type(value) is int and 0 < value <= LARGEST else None
