"""What a message becomes when it moves: a copy for another lane, or a letter's message for its second life."""

from __future__ import annotations

import time
from typing import Any

from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from broker.interface import DeadLetter
from broker.queue.dead_letter_json import LOCAL_OPTIONS


def moved(message: Message[Any] | MessageProxy, lane: str, options: dict[str, Any]) -> Message[Any]:
    """Return a copy for a lane, with changed options, without what was true only of its old place."""
    kept = {name: value for name, value in message.options.items() if name not in LOCAL_OPTIONS}
    return Message(
        queue_name=lane,
        actor_name=message.actor_name,
        args=message.args,
        kwargs=message.kwargs,
        options={**kept, **options},
        message_id=message.message_id,
        message_timestamp=message.message_timestamp,
    )


def requeued(letter: DeadLetter, lane: str) -> Message[Any]:
    """Return the message of a dead letter, its attempts forgotten, its generation one higher."""
    message: Message[Any] = Message(**{**letter.message, "args": tuple(letter.message["args"])})
    options = {"attempts": 0, "generation": int(message.options.get("generation", 0)) + 1, "enqueued_at": now_ms()}
    return moved(message, lane, options)


def now_ms() -> int:
    """Return the wall clock in ms since the epoch."""
    return time.time_ns() // 1_000_000
