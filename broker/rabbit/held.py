"""A message that a consumer of a RabbitMQ server holds, and its form on the wire."""

from __future__ import annotations

import struct
import time
from typing import Any, Final

import pika
from dramatiq.errors import DecodeError
from dramatiq.message import Message

from broker.errors import UnencodablePayload
from broker.held_message import HeldMessage
from broker.queue import codec, json_body
from broker.queue.operations import QueueOperations
from broker.queue.results import Lease
from broker.rabbit.publication import NO_NUMBER

CONTENT_TYPE: Final = "application/vnd.switchyard+json"
PERSISTENT: Final = 2
_FLAGS: Final = (
    pika.BasicProperties.FLAG_CONTENT_TYPE
    | pika.BasicProperties.FLAG_DELIVERY_MODE
    | pika.BasicProperties.FLAG_CORRELATION_ID
    | pika.BasicProperties.FLAG_MESSAGE_ID
)
_BEGIN: Final = struct.pack(f">HB{len(CONTENT_TYPE)}sB", _FLAGS, len(CONTENT_TYPE), CONTENT_TYPE.encode(), PERSISTENT)


class RabbitMessage(HeldMessage):
    """A message with the consumer that received it, and its delivery tag there.

    The fencing token of its lease is the number of its publication: two copies of a message have different ones, and
    one that is delivered again has the same.
    """

    def __init__(
        self, message: Message[Any], lease: Lease, family: QueueOperations, *, source: object, tag: int, body: bytes
    ) -> None:
        super().__init__(message, lease, family, body=body)
        self.source = source
        self.tag = tag
        self.received_s = time.monotonic()


class PublicationFields(pika.BasicProperties):
    """Properties of a new publication: persistent, with the message's id and a number of its own.

    pika's own encoding asks for each of fourteen properties, a tenth of the calls before a message is on its way.
    """

    def __init__(self, message_id: str) -> None:
        super().__init__(
            delivery_mode=PERSISTENT,
            content_type=CONTENT_TYPE,
            message_id=message_id,
            correlation_id=str(time.time_ns()),
        )

    def encode(self) -> list[bytes]:
        """Return the properties as AMQP 0-9-1 has them in a content header: flags, then values in the flags' order."""
        number, message_id = self.correlation_id.encode(), self.message_id.encode()
        return [_BEGIN, bytes((len(number),)), number, bytes((len(message_id),)), message_id]


def read(properties: Any, body: bytes, lane: str) -> tuple[Message[Any], bytes]:
    """Return a delivered message, and the number of its publication. Messages of stock Dramatiq are understood.

    Raises:
        UnreadableMessage: it is no message.
    """
    if properties.content_type == CONTENT_TYPE:
        message: Message[Any] = codec.decode(body, message_id=properties.message_id or "", lane=lane)
        number = str(properties.correlation_id or "")
        return message, number.encode() if number.isdigit() and len(number) <= 20 else NO_NUMBER
    try:
        found: Message[Any] = Message.decode(body)
        fields = {"actor": found.actor_name, "sent_at": found.message_timestamp}
        fields |= {"args": list(found.args), "kwargs": found.kwargs, "options": found.options}
        raw = json_body.encode(fields, limit_bytes=None)
    except (DecodeError, TypeError, KeyError, AttributeError, UnencodablePayload) as error:
        raise codec.UnreadableMessage(f"it is neither a message of this library nor of Dramatiq: {error}") from error
    return codec.decode(raw, message_id=found.message_id, lane=lane), NO_NUMBER
