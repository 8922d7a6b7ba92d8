"""Tries after failures are spaced, no call waits for longer than it has, and each answer keeps its own error."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import dramatiq
import pytest
import redis

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.redis import scripts
from switchyard.broker.redis.addresses import Absence
from switchyard.broker.redis.calls import APART_S, LONGEST_S, Pace, RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import NoMasterNamed
from switchyard.broker.redis.server_errors import unanswered
from switchyard.middleware import wait_for_broker


@pytest.fixture
def loading_server() -> Iterator[str]:
    """Serve ``INFO`` and refuse every other command, as a server does while it loads its data."""

    def answer(client: socket.socket) -> None:
        with client:
            while received := client.recv(4096):
                for words in received.split(b"*")[1:]:
                    client.sendall(b"$2\r\nok\r\n" if b"INFO" in words else b"-LOADING it loads its data\r\n")

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_the_first_try_after_calm_waits_for_nobody() -> None:
    assert Pace().turn_s() <= APART_S / 4


def test_tries_of_many_threads_come_one_after_the_other_and_all_in_time() -> None:
    pace = Pace()

    turns = [pace.turn_s() for _ in range(50)]

    assert all(later - earlier >= APART_S / 2 for earlier, later in pairwise(turns[:4]))
    assert max(turns) <= LONGEST_S + APART_S / 4


def test_a_pipeline_returns_the_answers_that_a_loading_server_gives(loading_server: str) -> None:
    calls = RedisCalls(connect(loading_server))

    answers = calls.pipeline([("INFO",), ("GET", "a"), ("GET", "b")], raise_errors=False)

    assert answers[0] == b"ok"
    assert [type(answer) for answer in answers[1:]] == [BrokerUnavailable, BrokerUnavailable]
    assert {(answer.code, answer.kind) for answer in answers[1:]} == {("LOADING", "BusyLoadingError")}
    with pytest.raises(BrokerUnavailable, match="it loads its data"):
        calls.pipeline([("GET", "a"), ("GET", "b")], budget_s=0.3)
    calls.close()


def full(*args: Any, **kwargs: Any) -> NoReturn:
    """Refuse to open anything."""
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_a_script_that_was_not_used_before_needs_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts.script("fetch")
    scripts.source.cache_clear()
    monkeypatch.setattr(Path, "read_text", full)

    assert "redis.call" in scripts.source("queue/move")


def test_a_process_without_descriptors_refuses_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait_for_broker, "PAUSE_S", 0)
    answers = iter([full, lambda: "moved"])
    message = dramatiq.Message("default", "act", (), {}, {})

    assert wait_for_broker.retry_until_available(message, "retry", lambda: next(answers)()) == "moved"


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("error", [redis.TimeoutError("t"), redis.AuthenticationError("a"), NoMasterNamed("m")])
def test_the_setting_that_named_the_server_is_named_whatever_failed(error: redis.RedisError, sent: bool) -> None:
    client = connect("redis://127.0.0.1:1", absence=Absence("", "start it", 'SWITCHYARD["BROKER_URL"]'))

    text = str(unanswered("PING", error, client, sent=sent))

    assert 'SWITCHYARD["BROKER_URL"] and' in text and "SWITCHYARD_REDIS_URL" not in text
