"""Dead letters for tests."""

import time
import uuid
from typing import Any

import dramatiq

from switchyard.broker.interface import Arguments, Transport
from switchyard.broker.shapes import DeadLetter, Moved
from switchyard.broker.stores.dead_lists import DeadLists


def letter(**changes: Any) -> DeadLetter:
    now = time.time_ns() // 1_000_000
    message_id = changes.get("id", str(uuid.uuid4()))
    queue, actor = changes.get("queue", "default"), changes.get("actor", "fail_always")
    values: dict[str, Any] = {
        "id": message_id,
        "queue": queue,
        "actor": actor,
        "message": {
            "queue_name": queue, "actor_name": actor, "args": [], "kwargs": {"number": 7},
            "options": {"enqueued_at": now - 5_000}, "message_id": message_id, "message_timestamp": now - 5_000,
        },
        "reason": "exhausted",
        "exception": "KeyError",
        "error": "'vat_rate'",
        "traceback": "Traceback (most recent call last):\n  File \"a.py\", line 1, in f\nKeyError: 'vat_rate'\n",
        "attempts": 6,
        "enqueued_at": now - 5_000,
        "died_at": now,
        "duration_ms": 12,
        "fingerprint": "f00dfacef00dface",
    }  # fmt: skip
    return DeadLetter(**(values | changes))


def keep(made: DeadLetter) -> DeadLetter:
    """Put a letter into its dead list on this project's broker, as if a worker had, without its row."""
    broker = dramatiq.get_broker()
    DeadLists(broker.calls, broker.keys).add(made)
    return made


def requeue(transport: Transport, queue: str, message_id: str, *, arguments: Arguments | None = None) -> Moved:
    """Requeue a letter as it is now; return what became of it."""
    named = _named(transport, queue, message_id)
    return transport.requeue(queue, named, nonce=uuid.uuid4().hex, arguments=arguments)[message_id]


def discard(transport: Transport, queue: str, message_id: str) -> Moved:
    """Discard a letter as it is now, without keeping it; return what became of it."""
    named = _named(transport, queue, message_id)
    return transport.discard(queue, named, nonce=uuid.uuid4().hex, keep=lambda letters: None)[message_id]


def _named(transport: Transport, queue: str, message_id: str) -> dict[str, int]:
    found = transport.find_dead_letter(queue, message_id)
    return {message_id: 0 if found is None else found.died_at}
