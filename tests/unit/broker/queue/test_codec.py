"""Bodies of messages that were written by hand, or contain numbers that arithmetic on them cannot handle."""

from __future__ import annotations

import json
from typing import Any

import pytest
from dramatiq.message import Message

from switchyard.broker.queue.codec import NUMBERS, UnreadableMessage, decode, encode

NOW_MS = 1_800_000_000_000


def read(**fields: Any) -> Any:
    body = json.dumps({"actor": "audit", "sent_at": NOW_MS, **fields}).encode()
    return decode(body, message_id="an-id", lane="work")


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, -(10**9), 2**63, 10**30, True, 1.5, "1", None, [1]])
def test_a_number_that_counts_nothing_is_unreadable(name: str, value: object) -> None:
    with pytest.raises(UnreadableMessage, match=f"option {name} is"):
        read(options={name: value})


def test_more_attempts_than_a_letter_can_count_are_unreadable() -> None:
    with pytest.raises(UnreadableMessage, match="out of range: 0 to 2147483646"):
        read(options={"attempts": 2**31 - 1})


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [1, 7, 2**31 - 2])
def test_other_numbers_are_read(name: str, value: int) -> None:
    assert read(options={name: value}).options == {name: value}


@pytest.mark.parametrize(("enqueued_at", "said"), [(NOW_MS, b'{"enqueued_at":0}'), (NOW_MS + 2, b"1800000000002")])
def test_a_body_says_once_when_a_message_was_made_and_enqueued(enqueued_at: int, said: bytes) -> None:
    options = {"enqueued_at": enqueued_at}
    message: Message[Any] = Message("work", "audit", (), {}, options, "an-id", NOW_MS)

    body = encode(message)

    assert said in body
    assert options == {"enqueued_at": enqueued_at}
    assert decode(body, message_id="an-id", lane="work") == message


@pytest.mark.parametrize("id_", ["", "x" * 201, "two\nlines", "\x1b[2J", "#", "a:events", "a:progress", "events"])
def test_an_id_that_nobody_could_have_sent_is_unreadable(id_: str) -> None:
    with pytest.raises(UnreadableMessage, match="its id is not an id"):
        decode(b'{"actor":"audit","sent_at":1}', message_id=id_, lane="work")


@pytest.mark.parametrize("sent_at", [-1, 10**30])
def test_a_time_that_no_clock_shows_is_unreadable(sent_at: int) -> None:
    with pytest.raises(UnreadableMessage, match="sent_at"):
        read(sent_at=sent_at)


def test_an_actor_of_a_name_that_would_fill_the_logs_is_unreadable() -> None:
    assert read(actor="a" * 256).actor_name == "a" * 256
    with pytest.raises(UnreadableMessage, match="its actor's name has 300000 characters; at most 256 are read"):
        read(actor="a" * 300_000)
