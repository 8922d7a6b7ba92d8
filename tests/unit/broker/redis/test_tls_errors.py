"""Remedies of failed connections are those of TLS where TLS failed, and no others."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.tls_errors import UNREADABLE, tls_remedy


@pytest.fixture
def port() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def error_of(url: str) -> redis.RedisError:
    """Return the error of a connection."""
    with pytest.raises(redis.RedisError) as caught:
        connect(url).ping()
    return caught.value


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
def test_a_file_that_is_missing_is_one_of_tls(port: int, tmp_path: Path, option: str) -> None:
    assert tls_remedy(error_of(f"rediss://127.0.0.1:{port}/0?{option}={tmp_path}/none.pem")) == UNREADABLE


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_a_connection_that_this_host_forbids_is_no_matter_of_files(
    port: int, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    def forbidden(*_: object) -> None:  # as SELinux does for a web server
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(socket.socket, "connect", forbidden)

    assert tls_remedy(error_of(f"{scheme}://127.0.0.1:{port}/0")) == ""


def test_a_socket_that_is_missing_is_no_matter_of_tls(tmp_path: Path) -> None:
    assert tls_remedy(error_of(f"unix://{tmp_path}/none.sock")) == ""
