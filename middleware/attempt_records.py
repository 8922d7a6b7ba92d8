"""Parts of an ended attempt's record: the message's body, the result, the failure."""

from __future__ import annotations

import json
from typing import Any

import structlog

from switchyard.broker.errors import BrokerError, ResultNotStored
from switchyard.broker.queue import codec
from switchyard.broker.queue.json_values import refused_part
from switchyard.broker.stores.ended_jobs import Failure
from switchyard.broker.stores.result_stores import RECORD_LIMIT_BYTES, ResultStores
from switchyard.middleware.fingerprints import fingerprint
from switchyard.middleware.outcomes import error_text

log = structlog.get_logger(__name__)

ERROR_CHARACTERS = 500


def body_of(message: Any) -> bytes:
    """Return a message as it came from the broker, or as it would be enqueued."""
    body = getattr(message, "body", None)
    if isinstance(body, bytes) and body:
        return body
    try:
        return codec.encode(message, grown=True)
    except BrokerError:  # of another library's broker, whose encoding takes more than JSON
        return b""


def result_of(
    message: Any, result: Any, stores: ResultStores, *, keep_ms: int = 0
) -> tuple[str | None, str, Failure | None]:
    """Return a result as JSON, ``null`` of none; or the place that a store keeps it in; or the failure to keep it."""
    try:
        text = json.dumps(result)
    except (TypeError, ValueError, RecursionError):
        path, fault, remedy = refused_part(result, "result")
        instead = remedy.replace("{}", path) or "text, numbers, lists, and dicts with text as keys"
        error, fact = ResultNotStored(f"is not stored: {path} {fault}; return {instead}"), "is no JSON"
    else:
        kept_in = stores.keep(message.message_id, text, keep_ms=keep_ms) if len(text) <= stores.limit_bytes else None
        if kept_in is not None:
            return (None if kept_in else text), kept_in, None
        limit_bytes = stores.limit_bytes if len(text) > stores.limit_bytes else RECORD_LIMIT_BYTES
        limit = f"of {len(text)} bytes is not stored, at most {limit_bytes} are"
        error, fact = ResultNotStored(f"{limit}; store what is large, and return its name"), "is too large"
    log.error(f"result {fact}, not kept", error=str(error), job_id=message.message_id, actor=message.actor_name)
    return None, "", failure_of(message, error)


def failure_of(message: Any, exception: BaseException | None, refusal: str = "") -> Failure | None:
    """Return an exception as it is recorded, or ``None`` without one.

    Args:
        refusal: Why its retry was refused.
    """
    if exception is None:
        return None
    text = _speakable(error_text(exception, refusal)[:ERROR_CHARACTERS])
    return Failure(type(exception).__name__, text, fingerprint(message.actor_name, exception))


def _speakable(text: str) -> str:
    """Return a text that UTF-8 can encode: an error may quote bytes that were decoded with surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
