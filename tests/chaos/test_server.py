"""Each verb of the server under test does what it says, on Valkey and on Redis."""

from __future__ import annotations

import pytest
import redis

from tests.chaos.server import ServerUnderTest


def test_a_killed_server_keeps_data_and_port(server: ServerUnderTest) -> None:
    url = server.url
    server.admin.set("kept", 1)

    server.kill()
    with pytest.raises(redis.ConnectionError):
        server.admin.ping()
    server.restart()

    assert server.url == url
    assert server.admin.get("kept") == b"1"


def test_a_server_starts_on_a_file_whose_tail_was_cut(server: ServerUnderTest) -> None:
    server.sync_each_write()
    for number in range(10):
        server.admin.set(f"key-{number}", "x" * 100)

    with pytest.raises(RuntimeError, match=r"kill\(\) it first"):
        server.truncate_aof(1)
    server.kill()
    size_bytes = server.aof_path.stat().st_size
    left_bytes = server.truncate_aof(150)
    server.restart()

    assert left_bytes == size_bytes - 150
    assert server.admin.dbsize() == 8
    assert "truncat" in server.log().lower()
    server.kill()
    with pytest.raises(ValueError, match="lost_bytes must be"):
        server.truncate_aof(10**9)


def test_a_full_server_refuses_until_there_is_room(server: ServerUnderTest) -> None:
    server.fill()
    with pytest.raises(redis.OutOfMemoryError):
        server.admin.set("key", "x")
    assert server.admin.get("key") is None
    server.make_room()

    assert server.admin.set("key", "x")
