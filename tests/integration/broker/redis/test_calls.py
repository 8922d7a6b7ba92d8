"""Calls on connections of their own: one caller at a time has one, never another's answer, nor itself as the server."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from math import inf
from typing import Any

import pytest
import redis

from switchyard.broker.errors import BrokerFull, BrokerUnavailable
from switchyard.broker.keys import Keys
from switchyard.broker.queue.operations import Entry, QueueOperations
from switchyard.broker.redis.calls import ANSWER_S, BUDGET_S, RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.scripts import script
from switchyard.broker.redis.sentinel import NAMELESS, ServerConnection, TlsConnection
from switchyard.broker.stores.alert_groups import AlertFact, AlertGroups
from tests.chaos.fault_proxy import FaultProxy
from tests.chaos.server import ServerUnderTest


@pytest.fixture
def calls(emptied: ServerUnderTest) -> Iterator[RedisCalls]:
    calls = RedisCalls(connect(emptied.url))
    yield calls
    calls.close()


def test_a_stream_that_fails_gives_its_connection_back_once(calls, emptied):
    keys = ["leases", "running"]
    assert len(list(calls.stream(script("join"), [(keys, ["a/live", 1_000, ""]), (keys, ["b/live", 1_000, ""])]))) == 2
    emptied.kill()
    try:
        with pytest.raises(BrokerUnavailable):
            list(calls.stream(script("join"), [(keys, ["c/live", 1_000, ""])], budget_s=1.0))
    finally:
        emptied.restart()

    assert len({id(connection) for connection in [calls.acquire() for _ in range(4)]}) == 4


class Interrupted(BaseException):
    """Exception that another thread raises in this one, such as a time limit."""


class AtSecondTry(RedisCalls):
    """A calls whose server is no longer there, or full, when a connection is asked for the second time."""

    tries = 0
    befall: Callable[[], object]

    def acquire(self, key: str | bytes | None = None) -> Any:
        self.tries += 1
        if self.tries == 2:
            self.befall()
        return super().acquire(key)


def set_one(calls: RedisCalls) -> object:
    return calls.command("SET", "lost:{q}:bodies", "x")


def stream(calls: RedisCalls) -> object:
    return QueueOperations(calls, Keys("lost").queue("q")).enqueue([Entry("a", b"x")])


@pytest.mark.parametrize(
    ("send", "is_full"), [(set_one, True), (stream, True), (stream, False)], ids=["one, full", "stream, full", "left"]
)
def test_a_server_that_is_full_or_left_does_not_hide_that_an_earlier_answer_was_lost(emptied, send, is_full):
    emptied.admin.script_load(script("enqueue").text)
    with FaultProxy(emptied.port) as proxy:
        calls = AtSecondTry(connect(proxy.url))
        calls.befall = (lambda: emptied.config_set("maxmemory", 1)) if is_full else proxy.close
        proxy.drop_reply(1, of=b"lost")

        with pytest.raises(BrokerUnavailable) as raised:
            send(calls)

        assert not isinstance(raised.value, BrokerFull)
        assert raised.value.outcome == "unknown"
        if not is_full:
            assert str(raised.value).count("did not answer") == str(raised.value).count("outcome") == 1
        assert emptied.admin.exists("lost:{q}:bodies")
        calls.close()


def test_an_answer_that_nobody_waited_for_is_nobody_elses(calls, monkeypatch):
    calls.command("PING")
    connection = calls.acquire()
    calls.release(connection)

    def interrupted(**_: object) -> None:
        monkeypatch.undo()
        raise Interrupted

    monkeypatch.setattr(connection, "read_response", interrupted)
    with pytest.raises(Interrupted):
        calls.command("ECHO", "one")

    assert calls.command("ECHO", "two") == b"two"


def test_a_server_that_may_not_write_is_away_and_not_wrong(calls, emptied):
    emptied.config_set("min-replicas-to-write", 1)
    try:
        with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
            calls.call(script("join"), ["leases", "running"], ["a/live", 1_000, ""], budget_s=1.0)
        with pytest.raises(BrokerUnavailable, match="NOREPLICAS"):
            list(calls.stream(script("join"), [(["leases", "running"], ["a/live", 1_000, ""])], budget_s=1.0))
    finally:
        emptied.config_set("min-replicas-to-write", 0)

    assert calls.call(script("join"), ["leases", "running"], ["a/live", 1_000, ""]) == 1


def test_what_a_server_would_not_recognise_is_not_sent_again_to_one_that_is_slow(emptied):
    calls, keys = RedisCalls(connect(emptied.url)), Keys("slow")
    groups = AlertGroups(calls, keys)
    fact = AlertFact("f", "dead_letter", "a title", "a detail", "work", "an actor", at=1)
    assert groups.raise_(fact) == 1  # the server knows the script now
    emptied.stop()
    goes_on = threading.Timer(ANSWER_S + 0.3, emptied.cont)
    goes_on.start()

    count = groups.raise_(fact)

    goes_on.join()
    assert count == 2
    assert groups.raise_(fact) == 3
    calls.close()


HOST = "127.0.0.1"


class FromItsOwnTarget(socket.socket):
    """A socket that gets the port to which it connects, as one try in some thousand does."""

    def connect(self, address: Any) -> None:
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.bind(address)
        super().connect(address)


@pytest.fixture()
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """Return a port at which nothing listens, and from which each new socket comes."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        found = int(probe.getsockname()[1])
    monkeypatch.setattr(socket, "socket", FromItsOwnTarget)
    return found


def test_such_a_socket_would_answer_a_command_with_its_words(port):
    client = redis.Redis(host=HOST, port=port, protocol=2, **NAMELESS)
    assert client.execute_command("EVALSHA", "digest", 1) == [b"EVALSHA", b"digest", b"1"]


# Over TLS it is refused before the handshake.
@pytest.mark.parametrize(("scheme", "profile"), [("redis", "quick"), ("redis", "normal"), ("rediss", "quick")])
def test_a_connection_to_itself_is_refused_like_one_to_a_server_that_is_away(port, scheme, profile):
    client = connect(f"{scheme}://{HOST}:{port}/0", profile=profile)
    with pytest.raises(redis.ConnectionError, match=f"Error 111 connecting to {HOST}:{port}. Connection refused"):
        client.execute_command("EVALSHA", "digest", 1)


def test_a_socket_that_was_reset_before_it_could_be_looked_at_is_closed(monkeypatch):
    made: list[socket.socket] = []

    class Reset(socket.socket):
        def getpeername(self) -> Any:
            made.append(self)
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with socket.create_server((HOST, 0)) as server:
        monkeypatch.setattr(socket, "socket", Reset)
        with pytest.raises(redis.ConnectionError, match="not connected"):
            connect(f"redis://{HOST}:{server.getsockname()[1]}/0", profile="quick").ping()

    assert [sock.fileno() for sock in made] == [-1]


@pytest.mark.parametrize("kind", [ServerConnection, TlsConnection])
def test_its_port_is_free_for_the_server_at_once(port, kind):
    with pytest.raises(redis.ConnectionError, match="Connection refused"):
        kind(host=HOST, port=port, socket_connect_timeout=1.0).connect()
    with socket.create_server((HOST, port)):
        pass


def test_four_hundred_greenlets_get_a_connection_each(valkey_url):
    calls = RedisCalls(connect(valkey_url))

    assert len({id(connection) for connection in [calls.acquire() for _ in range(400)]}) == 400


def test_a_wire_that_is_closed_again_and_again_connects_anew(valkey_url):
    calls = RedisCalls(connect(valkey_url))

    for _ in range(150):
        assert calls.command("PING") == b"PONG"
        calls.close()


@pytest.mark.parametrize("late_s", [inf, pytest.param(0.4, marks=pytest.mark.long)])
def test_a_server_that_hangs_ends_a_call_in_its_budget_on_old_and_on_new_connections(emptied, late_s):
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
