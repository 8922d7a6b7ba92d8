"""The proxy that puts a distance before the server."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
import redis

from switchyard.broker.redis.connections import connect
from tests.environment import SERVER


@pytest.fixture
def far() -> Iterator[redis.Redis]:
    command = [sys.executable, "-m", "benchmarks.delay_proxy", str(SERVER.port), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline())
        with connect(f"redis://127.0.0.1:{port}/0") as client:
            yield client
        proxy.kill()


def test_an_answer_comes_one_round_trip_later(far: redis.Redis) -> None:
    far.ping()
    started_s = time.perf_counter()

    far.ping()

    assert time.perf_counter() - started_s >= 0.010


def test_what_is_large_arrives_whole_and_in_order(far: redis.Redis) -> None:
    value = bytes(range(256)) * 8_192

    with far.pipeline(transaction=False) as pipe:
        pipe.echo(value)
        pipe.echo(b"second")
        answers = pipe.execute()

    assert answers == [value, b"second"]
