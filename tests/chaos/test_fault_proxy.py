"""Each verb of the fault proxy does to a real server's connections what it says, and stops when it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
import redis

from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.server import connect_once
from tests.environment import SERVER
from tests.waiting import wait_for


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with FaultProxy(SERVER.port) as proxy:
        yield proxy
    assert proxy.open_count == 0


@pytest.fixture
def client(valkey: redis.Redis, proxy: FaultProxy) -> Iterator[redis.Redis]:
    """A client that repeats nothing and gives up after some seconds, connected."""
    with connect_once(proxy.url) as client:
        assert client.ping()
        yield client


def test_a_blackhole_swallows_and_a_client_connects_anew_after_it(
    valkey: redis.Redis, client: redis.Redis, proxy: FaultProxy
) -> None:
    proxy.blackhole()
    with pytest.raises(redis.TimeoutError):
        client.set("swallowed", 1)
    with pytest.raises(redis.TimeoutError):
        client.set("swallowed", 1)  # over a new connection

    proxy.pass_()

    assert client.set("kept", 1)
    assert valkey.keys() == [b"kept"]
    assert proxy.swallowed_bytes > 0


@pytest.mark.parametrize(("direction", "done"), [("to_server", False), ("to_client", True)])
def test_a_stalled_direction_loses_nothing(
    valkey: redis.Redis, client: redis.Redis, proxy: FaultProxy, direction: str, done: bool
) -> None:
    proxy.stall(direction)  # type: ignore[arg-type]
    answers: list[object] = []
    caller = threading.Thread(target=lambda: answers.append(client.incr("counter")))
    caller.start()
    if done:
        wait_for(lambda: valkey.get("counter") == b"1")
    caller.join(0.1)
    held = caller.is_alive()
    seen = valkey.get("counter")

    proxy.pass_()
    caller.join(60)

    assert held
    assert seen == (b"1" if done else None)
    assert answers == [1]
    assert proxy.accepted_count == 1


def test_a_reset_is_a_reset_and_no_end(client: redis.Redis, proxy: FaultProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
        wait_for(lambda: proxy.open_count == 2)

        count = proxy.reset()

        assert count == 2
        with pytest.raises(ConnectionResetError):
            raw.recv(1)
    assert client.ping()
    assert proxy.accepted_count == 3


def test_a_command_whose_reply_is_dropped_was_done(valkey: redis.Redis, client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.drop_reply(2)
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.incr("counter")

    assert client.get("counter") == b"2"
    assert proxy.faults_met_count == 2


def test_a_reply_that_is_cut_in_its_middle_is_an_error_and_no_answer(client: redis.Redis, proxy: FaultProxy) -> None:
    client.set("big", b"x" * 1_000)
    proxy.cut_mid_frame(of=b"GET")

    with pytest.raises(redis.ConnectionError):
        client.get("big")

    assert client.get("big") == b"x" * 1_000
    assert proxy.faults_met_count == 1
