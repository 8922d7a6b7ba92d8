"""A calls has as many connections as it has callers at once, and makes new ones for as long as it lives."""

from __future__ import annotations

import time
from math import inf

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import BUDGET_S, RedisCalls
from switchyard.broker.redis.connections import connect
from tests.chaos.server import ServerUnderTest


def test_four_hundred_greenlets_get_a_connection_each(valkey_url: str) -> None:
    calls = RedisCalls(connect(valkey_url))

    taken = [calls.acquire() for _ in range(400)]

    assert len({id(connection) for connection in taken}) == 400


def test_a_wire_that_is_closed_again_and_again_connects_anew(valkey_url: str) -> None:
    calls = RedisCalls(connect(valkey_url))

    for _ in range(150):
        assert calls.command("PING") == b"PONG"
        calls.close()


@pytest.mark.parametrize("late_s", [inf, pytest.param(0.4, marks=pytest.mark.long)])
def test_a_server_that_hangs_ends_a_call_in_its_budget_on_old_and_on_new_connections(
    emptied: ServerUnderTest, late_s: float
) -> None:
    calls = RedisCalls(connect(emptied.url))
    family = QueueOperations(calls, Keys("hangs").queue("q"))
    assert calls.command("PING") == b"PONG"
    took_s = []

    emptied.stop()
    try:
        for act in (*[lambda: family.enqueue([Entry("a", b"{}")])] * 2, family.owners):
            started_s = time.monotonic()
            with pytest.raises(BrokerUnavailable) as refused:
                act()
            took_s.append(time.monotonic() - started_s)
            assert refused.value.outcome == "unknown"
    finally:
        emptied.cont()

    assert max(took_s) < BUDGET_S + late_s
