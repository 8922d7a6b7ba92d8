"""Tries after failures are spaced, each answer keeps its own error; addresses of a server and of sentinels."""

import errno
import logging
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

from switchyard.broker.errors import BrokerUnavailable, UnusableAddress
from switchyard.broker.redis import scripts
from switchyard.broker.redis.addresses import Absence, is_loopback
from switchyard.broker.redis.calls import APART_S, LONGEST_S, Pace, RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import MasterConnection, NoMasterNamed, SecureMasterConnection, Sentinels, parse
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


def test_tries_of_many_threads_come_one_after_the_other_the_first_at_once_and_all_in_time():
    pace = Pace()

    turns = [pace.turn_s() for _ in range(50)]

    assert all(later - earlier >= APART_S / 2 for earlier, later in pairwise(turns[:4]))
    assert turns[0] <= APART_S / 4 and max(turns) <= LONGEST_S + APART_S / 4


def test_a_pipeline_returns_the_answers_that_a_loading_server_gives(loading_server):
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


def test_a_script_that_was_not_used_before_needs_no_file(monkeypatch):
    scripts.script("fetch")
    scripts.source.cache_clear()
    monkeypatch.setattr(Path, "read_text", full)

    assert "redis.call" in scripts.source("queue/move")


def test_a_process_without_descriptors_refuses_no_message(monkeypatch):
    monkeypatch.setattr(wait_for_broker, "PAUSE_S", 0)
    answers = iter([full, lambda: "moved"])
    message = dramatiq.Message("default", "act", (), {}, {})

    assert wait_for_broker.retry_until_available(message, "retry", lambda: next(answers)()) == "moved"


@pytest.mark.parametrize("sent", [False, True])
@pytest.mark.parametrize("error", [redis.TimeoutError("t"), redis.AuthenticationError("a"), NoMasterNamed("m")])
def test_the_setting_that_named_the_server_is_named_whatever_failed(error, sent):
    client = connect("redis://127.0.0.1:1", absence=Absence("", "start it", 'SWITCHYARD["BROKER_URL"]'))

    text = str(unanswered("PING", error, client, sent=sent))

    assert 'SWITCHYARD["BROKER_URL"] and' in text and "SWITCHYARD_REDIS_URL" not in text


PASSWORD = "s3cret"


def test_an_address_has_its_parts():
    url = f"rediss+sentinel://worker:p%40{PASSWORD}@a:1,b,[::1]:3/yard/2?sentinel_username=s&ssl_ca_certs=/ca.pem"

    found = parse(url)

    assert found.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert (found.master, found.secure, found.sentinel_secure, found.sentinel_username) == ("yard", True, True, "s")
    assert found.at("fd00::1", 6379) == f"rediss://worker:p%40{PASSWORD}@[fd00::1]:6379/2?ssl_ca_certs=%2Fca.pem"
    assert PASSWORD not in repr(found)


@pytest.mark.parametrize("url", ["redis+sentinel://a/yard", "redis+sentinel://a/yard/", "redis+sentinel://a/yard/0"])
def test_the_first_database_is_the_default(url):
    assert parse(url).at("h", 1) == "redis://h:1/0"


@pytest.mark.parametrize(
    ("url", "fact"),
    [
        ("redis+sentinel://a:26379", "names no master"),
        ("redis+sentinel://a:26379/?sentinel_username=x", "names no master"),
        ("redis+sentinel:///yard", "not a host:port"),
        (f"redis+sentinel://:{PASSWORD}@a:x/yard", "not a host:port"),
        (f"redis+sentinel://:p#{PASSWORD}@a:1/yard", "not a host:port"),
        (f"redis+sentinel://u:p/{PASSWORD}@a:1/yard", "not a host:port"),
        (f"redis+sentinel://u:12/{PASSWORD}@a:1/yard", "names no master"),
        ("redis+sentinel://a:1,,b:1/yard", "not a host:port"),
        ("redis+sentinel://a:1/yard/one", "a database that is not a number"),
        ("redis+sentinel://a:1/yard?sentinel_ssl=maybe", "sentinel_ssl='maybe'"),
        ("redis+sentinel://a:1/yard?sentinel_ssl=yes", "sentinel_ssl=yes with redis"),
    ],
)
def test_a_wrong_part_is_named_without_the_password(url, fact):
    with pytest.raises(UnusableAddress, match=fact) as refused:
        parse(url)

    assert PASSWORD not in str(refused.value)
    assert "write" in refused.value.remedy or "redis+sentinel://" in refused.value.remedy


def test_connections_follow_the_master_with_the_login_of_the_address():
    plain = connect("redis+sentinel://u:pw@a:1/yard/3", profile="quick").connection_pool
    secure = connect("rediss+sentinel://u:pw@a:1/yard?ssl_ca_certs=/ca.pem").connection_pool

    assert (plain.connection_class, secure.connection_class) == (MasterConnection, SecureMasterConnection)
    options = plain.connection_kwargs
    assert (options["username"], options["password"], options["db"], options["socket_timeout"]) == ("u", "pw", 3, 1.0)
    assert secure.connection_kwargs["ssl_ca_certs"] == "/ca.pem"


LOOPBACK = ("localhost", "127.0.0.1", "127.0.0.11", "::1")


@pytest.mark.parametrize("host", [*LOOPBACK, None, "", "10.0.0.1", "valkey", "128.0.0.1", "127.example.com", "::2"])
def test_addresses_of_the_loopback_interface_alone_are_this_machine(host):
    assert is_loopback(host) is (host in LOOPBACK)


class Answering(Sentinels):
    def __init__(self, answers: list[tuple[int, str]]) -> None:
        super().__init__(parse("redis+sentinel://a:1/yard/0"), {})
        self.answers = answers

    def ask(self, *args: Any) -> list[Any]:
        """Return the next answer: the number of the failover, and the host."""
        epoch, host = self.answers.pop(0)
        return [[b"config-epoch", b"%d" % epoch], [host.encode(), b"6379"]]


def test_a_new_master_is_named_beside_the_former_one(caplog):
    sentinels = Answering([(1, "valkey-1"), (1, "valkey-1"), (2, "valkey-2")])

    with caplog.at_level(logging.INFO, logger="switchyard.broker"):
        for _ in range(3):
            sentinels.locate()

    assert caplog.messages == ["broker: the sentinels name valkey-2:6379 as the master, in place of valkey-1:6379"]
    assert sentinels.changes == 1
