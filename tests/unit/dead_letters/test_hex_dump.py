from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import dramatiq
import pytest

from switchyard.broker.shapes import Unreadable
from switchyard.dead_letters.presentation import unreadable_summary
from switchyard.dead_letters.queries import hex_dump, shown_bytes


@pytest.fixture
def hiding() -> Iterator[None]:
    """An actor that hides its second argument."""

    @dramatiq.actor(actor_name="hiding", redact=("key",))
    def hiding(number: int, key: str) -> None: ...

    yield
    del dramatiq.get_broker().actors["hiding"]


def quarantined(raw: bytes) -> Unreadable:
    return Unreadable("an id", "default", raw, len(raw), "it has an unknown option", 1)


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize("given", [{"args": [7, "canary"]}, {"args": [7], "kwargs": {"key": "canary"}}])
def test_redacted_arguments_are_hidden_where_the_actor_is_known(given: dict[str, Any]) -> None:
    item = quarantined(json.dumps({"actor": "hiding", "sent_at": 1, "options": {"new": 1}, **given}).encode())

    shown = json.loads(shown_bytes(item))

    assert "canary" not in str(shown) and "[redacted]" in str(shown)
    assert (shown["options"], shown["args"][0]) == ({"new": 1}, 7)
    assert b"canary" not in bytes.fromhex(unreadable_summary(item)["raw_hex"])


@pytest.mark.usefixtures("hiding")
@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"\xff", b"[1]", b"7", b'{"actor":["hiding"]}', b'{"actor":"nobody","args":["a"]}'),
        *(b'{ "actor":"hiding", "args":7}', b'{ "actor":"hiding", "args":[7]}', b"[" * 3_000),
    ],
)
def test_other_bytes_are_shown_as_they_came(raw: bytes) -> None:
    assert shown_bytes(quarantined(raw)) == raw


def test_bytes_are_shown_by_offset_with_printable_text_only() -> None:
    lines = hex_dump(b"<b>\x1b[31m\x00\xff" + bytes(10)).splitlines()

    assert lines[0] == "000000  3c 62 3e 1b 5b 33 31 6d 00 ff 00 00 00 00 00 00  <b>.[31m........"
    assert lines[1].startswith("000010  00 00 00 00")
