"""A wire has as many connections as it has callers at once, and makes new ones for as long as it lives."""

from __future__ import annotations

from broker.clients import connect
from broker.wire import Wire


def test_four_hundred_greenlets_get_a_connection_each(valkey_url: str) -> None:
    wire = Wire(connect(valkey_url))

    taken = [wire.take() for _ in range(400)]

    assert len({id(connection) for connection in taken}) == 400


def test_a_wire_that_is_closed_again_and_again_connects_anew(valkey_url: str) -> None:
    wire = Wire(connect(valkey_url))

    for _ in range(150):
        assert wire.command("PING") == b"PONG"
        wire.close()
