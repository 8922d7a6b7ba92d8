"""Encoding of dead letters: JSON of :class:`switchyard.broker.shapes.DeadLetter`."""

from __future__ import annotations

import json
import logging
import traceback
from dataclasses import asdict
from typing import Any, TypedDict

import msgspec
from dramatiq.broker import MessageProxy
from dramatiq.errors import ActorNotFound

from switchyard.broker.clock import now_ms
from switchyard.broker.queue.codec import as_sent
from switchyard.broker.shapes import DeadLetter

logger = logging.getLogger("switchyard.broker")

# Options that describe a message in its present place; a moved message and a dead letter drop them.
LOCAL_OPTIONS = frozenset({"redis_message_id", "eta", "due_at", "parked_ms", "retries"})


class _Payload(TypedDict):
    queue_name: str
    actor_name: str
    args: list[Any]
    kwargs: dict[str, Any]
    options: dict[str, Any]
    message_id: str
    message_timestamp: int


def encode(dead_letter: DeadLetter) -> str:
    return json.dumps(asdict(dead_letter))


def decode(queue: str, data: bytes) -> DeadLetter | None:
    """Return the dead letter in JSON; log and return ``None`` for one of another release, or written by hand."""
    try:
        fields = json.loads(data)
        dead_letter = DeadLetter(**fields)
        msgspec.convert(fields, DeadLetter)
        msgspec.convert(dead_letter.message, _Payload)
        return dead_letter
    except (TypeError, ValueError, RecursionError) as error:
        logger.error("a letter of %d bytes in %s-dead cannot be read: %s", len(data), queue, error)
        return None


def payload_of(message: Any) -> dict[str, Any]:
    """Return the fields of a message that its dead letter keeps."""
    sent = as_sent(message)
    options = {name: value for name, value in message.options.items() if name not in LOCAL_OPTIONS}
    return {
        "queue_name": message.queue_name,
        "actor_name": message.actor_name,
        "args": list(sent.args),
        "kwargs": sent.kwargs,
        "options": options,
        "message_id": message.message_id,
        "message_timestamp": int(message.message_timestamp),
    }


def rejected(message: MessageProxy, queue: str) -> DeadLetter:
    """Return a dead letter for a message that Dramatiq rejected and no middleware described."""
    error = message._exception or ActorNotFound(message.actor_name)
    return DeadLetter(
        id=message.message_id,
        queue=queue,
        actor=message.actor_name,
        message=payload_of(message),
        reason="permanent",
        exception=type(error).__name__,
        error=str(error),
        traceback="".join(traceback.format_exception(error)),
        attempts=int(message.options.get("attempts", 0)),
        enqueued_at=int(message.options.get("enqueued_at", message.message_timestamp)),
        died_at=now_ms(),
        duration_ms=0,
        fingerprint=f"{message.actor_name} {type(error).__name__}",
    )
