"""A client whose server is away is never connected to itself."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

import pytest
import redis

from switchyard.broker.redis.connections import Profile, connect
from switchyard.broker.redis.server_connection import NAMELESS, ServerConnection, TlsConnection

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


def test_such_a_socket_would_answer_a_command_with_its_words(port: int) -> None:
    client = redis.Redis(host=HOST, port=port, protocol=2, **NAMELESS)
    assert client.execute_command("EVALSHA", "digest", 1) == [b"EVALSHA", b"digest", b"1"]


@pytest.mark.parametrize("profile", ["quick", "normal", "blocking"])
def test_a_connection_to_itself_is_refused_like_one_to_a_server_that_is_away(port: int, profile: Profile) -> None:
    client = connect(f"redis://{HOST}:{port}/0", profile=profile)
    with pytest.raises(redis.ConnectionError, match=f"Error 111 connecting to {HOST}:{port}. Connection refused"):
        client.execute_command("EVALSHA", "digest", 1)


def test_over_tls_it_is_refused_before_the_handshake(port: int) -> None:
    with pytest.raises(redis.ConnectionError, match="Connection refused"):
        connect(f"rediss://{HOST}:{port}/0", profile="quick").ping()


def test_a_socket_that_was_reset_before_it_could_be_looked_at_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_its_port_is_free_for_the_server_at_once(port: int, kind: type[ServerConnection]) -> None:
    with pytest.raises(redis.ConnectionError, match="Connection refused"):
        kind(host=HOST, port=port, socket_connect_timeout=1.0).connect()
    with socket.create_server((HOST, port)):
        pass
