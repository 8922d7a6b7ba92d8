"""Messages that a consumer of a RabbitMQ server holds, and how they are read."""

from __future__ import annotations

import time
from typing import Any

from dramatiq.errors import DecodeError
from dramatiq.message import Message

from switchyard.addons.rabbitmq.frames import CONTENT_TYPE
from switchyard.addons.rabbitmq.outgoing import NO_NUMBER
from switchyard.broker.errors import UnencodablePayload
from switchyard.broker.held_message import HeldMessage
from switchyard.broker.queue import codec, json_body
from switchyard.broker.queue.operations import Lease, QueueOperations


class RabbitMessage(HeldMessage):
    """A message with the consumer that received it, and its delivery tag there.

    The fencing token of its lease is the number of its publication: two copies of a message have different ones, and
    one that is delivered again has the same.
    """

    def __init__(
        self, message: Message[Any], lease: Lease, family: QueueOperations, *, source: object, tag: int, body: bytes
    ) -> None:
        super().__init__(message, lease, family)
        self.source, self.tag, self.body = source, tag, body
        self.received_s = time.monotonic()


def is_unstarted(message: RabbitMessage) -> bool:
    """Return whether a message was skipped, because of a lease in doubt or a quiet child, and must run elsewhere."""
    outcome = message.outcome
    return outcome is not None and outcome.kind == "deferred" and outcome.reason in ("lease", "quiet")


def ends_suspicion(message: RabbitMessage) -> bool:
    """Return whether a message is a lapse suspect that has ended, well or not; a deferred one stays a suspect."""
    outcome = message.outcome
    return message.lapses is not None and (outcome is None or outcome.kind != "deferred")


def read(properties: Any, body: bytes, lane: str) -> tuple[Message[Any], bytes]:
    """Return a delivered message, and the number of its publication. Messages of stock Dramatiq are understood.

    Raises:
        UnreadableMessage: it is no message.
    """
    if properties.content_type == CONTENT_TYPE:
        message: Message[Any] = codec.decode(body, message_id=id_of(properties), lane=lane)
        number = str(properties.correlation_id or "")
        is_ours = number.isascii() and number.isdigit() and len(number) <= 20
        return message, number.encode() if is_ours else NO_NUMBER
    try:
        found: Message[Any] = Message.decode(body)
        fields = {"actor": found.actor_name, "sent_at": found.message_timestamp}
        fields |= {"args": list(found.args), "kwargs": found.kwargs, "options": found.options}
        raw = json_body.encode(fields, limit_bytes=None)
    except (DecodeError, TypeError, KeyError, AttributeError, UnencodablePayload) as error:
        raise codec.UnreadableMessage(f"it is neither a message of this library nor of Dramatiq: {error}") from error
    id_: Any = found.message_id
    return codec.decode(raw, message_id=id_ if isinstance(id_, str) else "", lane=lane), NO_NUMBER


def id_of(properties: Any) -> str:
    """Return the id of a delivery. pika leaves one that is not UTF-8 as bytes."""
    id_ = properties.message_id or ""
    return str(id_, "utf-8", "backslashreplace") if isinstance(id_, bytes) else id_
