"""Each verb of the fault proxy does to a real server's connections what it says, and stops when it is told."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
import warnings
from collections.abc import Iterator

import pytest
import redis

from switchyard.broker.redis.connections import connect
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


def test_a_new_proxy_forwards_and_counts_connections(client: redis.Redis, proxy: FaultProxy) -> None:
    big = b"x" * 1_000_000

    client.set("big", big)

    assert client.get("big") == big
    assert (proxy.accepted_count, proxy.open_count) == (1, 1)


def test_a_connection_that_its_client_closes_is_closed_at_the_server(
    valkey: redis.Redis, client: redis.Redis, proxy: FaultProxy
) -> None:
    before = len(valkey.client_list())  # type: ignore[arg-type]
    client.close()

    wait_for(lambda: proxy.open_count == 0)
    wait_for(lambda: len(valkey.client_list()) == before - 1)  # type: ignore[arg-type]


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


def test_a_connection_that_slept_through_a_blackhole_lives_on(client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.blackhole()
    proxy.pass_()

    assert client.ping()
    assert proxy.accepted_count == 1


def test_a_half_open_connection_hears_nothing_while_a_new_one_works(client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.half_open()

    with pytest.raises(redis.TimeoutError):
        client.ping()

    assert client.ping()
    assert proxy.accepted_count == 2


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


def test_a_delay_counts_both_ways_and_ends(client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.delay(40, jitter_ms=10)
    slow_s = timed(client)
    proxy.pass_()
    quick_s = min(timed(client) for _ in range(10))

    assert slow_s >= 0.08
    assert quick_s < 0.08


def test_a_delay_keeps_the_order_and_lets_answers_overlap(client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.delay(20, jitter_ms=20)
    with socket.create_connection(("127.0.0.1", proxy.port)) as raw:
        started = time.monotonic()
        for number in range(250):
            raw.sendall(b"ECHO %03d\r\n" % number)
        got = b""
        while len(got) < 250 * 9:
            got += raw.recv(4096)

    assert got == b"".join(b"$3\r\n%03d\r\n" % number for number in range(250))
    assert time.monotonic() - started < 8, "one by one it takes 15 s"


def test_a_rate_limits_what_passes(client: redis.Redis, proxy: FaultProxy) -> None:
    proxy.rate(100_000)
    started = time.monotonic()
    client.set("big", b"x" * 30_000)
    slow_s = time.monotonic() - started
    proxy.pass_()

    assert slow_s >= 0.25
    assert min(timed(client) for _ in range(10)) < 0.1


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


def test_only_replies_to_commands_that_hold_given_bytes_are_dropped(
    valkey: redis.Redis, client: redis.Redis, proxy: FaultProxy
) -> None:
    proxy.drop_reply(2, of=b"precious")
    for _ in range(2):
        assert client.ping()
        with pytest.raises(redis.ConnectionError):
            client.incr("precious")

    assert client.incr("precious") == 3
    assert proxy.faults_met_count == 2


def test_a_reply_that_is_cut_in_its_middle_is_an_error_and_no_answer(client: redis.Redis, proxy: FaultProxy) -> None:
    client.set("big", b"x" * 1_000)
    proxy.cut_mid_frame(of=b"GET")

    with pytest.raises(redis.ConnectionError):
        client.get("big")

    assert client.get("big") == b"x" * 1_000
    assert proxy.faults_met_count == 1


def test_a_server_that_is_away_refuses_through_the_proxy() -> None:
    with FaultProxy(1) as proxy, connect(proxy.url, profile="quick") as client, pytest.raises(redis.ConnectionError):
        client.ping()


def test_a_proxy_that_refuses_does_so_until_it_passes_again(client: redis.Redis, proxy: FaultProxy) -> None:
    client.set("a", "1")

    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port), timeout=5)
    with pytest.raises(redis.ConnectionError):
        client.get("a")
    proxy.pass_()

    assert client.get("a") == b"1"


def test_closing_ends_the_thread_and_frees_the_port(valkey: redis.Redis) -> None:
    proxy = FaultProxy(SERVER.port)
    with proxy, connect_once(proxy.url) as client:
        assert client.ping()
        proxy.stall()

    proxy.close()  # again is no error

    assert "fault proxy" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", proxy.port))


def timed(client: redis.Redis) -> float:
    """Return how long a round trip takes."""
    started = time.monotonic()
    client.ping()
    return time.monotonic() - started


def test_closing_ends_a_connection_whose_client_does_not_read(valkey: redis.Redis) -> None:
    valkey.set("big", b"x" * 20_000_000)
    with FaultProxy(SERVER.port) as proxy, socket.create_connection((proxy.host, proxy.port)) as client:
        client.sendall(b"GET big\r\n")
        wait_for(lambda: proxy.accepted_count == 1)
        transports = wait_for(lambda: list(proxy._transports) if len(proxy._transports) == 2 else [])
        wait_for(lambda: any(transport.get_write_buffer_size() for transport in transports))
        for link in list(proxy._links):
            proxy._do(lambda link=link: proxy._end(link))  # type: ignore[misc]
        wait_for(lambda: proxy.open_count == 0)

    assert [transport.get_extra_info("socket").fileno() for transport in transports] == [-1, -1]


def test_closing_leaves_no_connection_open_that_had_just_begun(valkey: redis.Redis) -> None:
    gc.collect()
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(30):
            with contextlib.ExitStack() as clients, FaultProxy(SERVER.port) as proxy:
                for _ in range(5):
                    clients.enter_context(socket.create_connection((proxy.host, proxy.port)))
        gc.collect()

    assert [str(warning.message) for warning in left_open] == []
