"""A connection belongs to one caller at a time, and never holds another's answer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.clients import connect
from broker.errors import BrokerUnavailable
from broker.wire import Wire, script
from tests.chaos.server import ServerUnderTest


@pytest.fixture
def wire(emptied: ServerUnderTest) -> Iterator[Wire]:
    wire = Wire(connect(emptied.url))
    yield wire
    wire.close()


def test_a_stream_that_fails_gives_its_connection_back_once(wire: Wire, emptied: ServerUnderTest) -> None:
    lease = ["leases"]
    assert len(list(wire.stream(script("join"), [(lease, ["a/live", 1_000]), (lease, ["b/live", 1_000])]))) == 2
    emptied.kill()
    try:
        with pytest.raises(BrokerUnavailable):
            list(wire.stream(script("join"), [(lease, ["c/live", 1_000])], budget_s=0.2))
    finally:
        emptied.restart()

    taken = [wire.take() for _ in range(4)]
    assert len({id(connection) for connection in taken}) == 4
