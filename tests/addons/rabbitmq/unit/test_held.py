"""Deliveries of other programs: whatever is in one, it is a message or is set aside, and no consumer ends."""

from __future__ import annotations

import json
from typing import Any

import pika
import pytest

from switchyard.addons.rabbitmq.connections import CONTENT_TYPE
from switchyard.addons.rabbitmq.outgoing import NO_NUMBER, Publication, read
from switchyard.broker.queue.codec import UnreadableMessage

OURS = b'{"actor":"job","sent_at":1}'
STOCK = {"queue_name": "work", "actor_name": "job", "args": [], "kwargs": {}, "options": {}, "message_timestamp": 1}


def ours(**fields: Any) -> pika.BasicProperties:
    """Return the properties of a message of this library."""
    return pika.BasicProperties(content_type=CONTENT_TYPE, **fields)


@pytest.mark.parametrize("number", ["²", "٣", "12²", "1" * 21, "-1", "x", b"\xb2", None])
def test_a_publication_without_a_number_of_ours_counts_as_one_without(number: Any) -> None:
    message, found = read(ours(message_id="a", correlation_id=number), OURS, "work")

    assert found == NO_NUMBER
    assert Publication(message.message_id, found).mark > 0


def test_an_id_that_is_not_utf_8_is_written_out() -> None:
    message, _ = read(ours(message_id=b"caf\xe9"), OURS, "work")

    assert message.message_id == r"caf\xe9"


@pytest.mark.parametrize(
    "body",
    [
        *(json.dumps({**STOCK, "message_id": 5}).encode(), json.dumps({**STOCK, "message_id": None}).encode()),
        *(json.dumps({**STOCK, "message_id": ["a"]}).encode(), b"[" * 100_000, b"1" * 5_000, b'{"a":' * 100_000),
    ],
    ids=["a number as id", "no id", "a list as id", "nested lists", "too many digits", "nested objects"],
)
def test_what_is_no_message_of_dramatiq_is_unreadable(body: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        read(pika.BasicProperties(), body, "work")
