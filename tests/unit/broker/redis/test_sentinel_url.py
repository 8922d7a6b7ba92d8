"""Addresses of a server and of sentinels, and what the log says of a failover."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from switchyard.broker.errors import UnusableAddress
from switchyard.broker.redis.addresses import is_loopback
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.sentinel import MasterConnection, SecureMasterConnection, Sentinels, parse

PASSWORD = "s3cret"


def test_an_address_has_its_parts() -> None:
    url = f"rediss+sentinel://worker:p%40{PASSWORD}@a:1,b,[::1]:3/yard/2?sentinel_username=s&ssl_ca_certs=/ca.pem"

    found = parse(url)

    assert found.sentinels == (("a", 1), ("b", 26379), ("::1", 3))
    assert (found.master, found.secure, found.sentinel_secure, found.sentinel_username) == ("yard", True, True, "s")
    assert found.at("fd00::1", 6379) == f"rediss://worker:p%40{PASSWORD}@[fd00::1]:6379/2?ssl_ca_certs=%2Fca.pem"
    assert PASSWORD not in repr(found)


@pytest.mark.parametrize("url", ["redis+sentinel://a/yard", "redis+sentinel://a/yard/", "redis+sentinel://a/yard/0"])
def test_the_first_database_is_the_default(url: str) -> None:
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
def test_a_wrong_part_is_named_without_the_password(url: str, fact: str) -> None:
    with pytest.raises(UnusableAddress, match=fact) as refused:
        parse(url)

    assert PASSWORD not in str(refused.value)
    assert "write" in refused.value.remedy or "redis+sentinel://" in refused.value.remedy


def test_connections_follow_the_master_with_the_login_of_the_address() -> None:
    plain = connect("redis+sentinel://u:pw@a:1/yard/3", profile="quick").connection_pool
    secure = connect("rediss+sentinel://u:pw@a:1/yard?ssl_ca_certs=/ca.pem").connection_pool

    assert (plain.connection_class, secure.connection_class) == (MasterConnection, SecureMasterConnection)
    options = plain.connection_kwargs
    assert (options["username"], options["password"], options["db"], options["socket_timeout"]) == ("u", "pw", 3, 1.0)
    assert secure.connection_kwargs["ssl_ca_certs"] == "/ca.pem"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.0.0.11", "::1"])
def test_addresses_of_the_loopback_interface_are_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", [None, "", "10.0.0.1", "valkey", "128.0.0.1", "127.example.com", "::2"])
def test_other_hosts_are_not(host: str | None) -> None:
    assert not is_loopback(host)


class Answering(Sentinels):
    """Sentinels whose answers are given."""

    def __init__(self, answers: list[tuple[int, str]]) -> None:
        super().__init__(parse("redis+sentinel://a:1/yard/0"), {})
        self.answers = answers

    def ask(self, *args: Any) -> list[Any]:
        """Return the next answer: the number of the failover, and the host."""
        epoch, host = self.answers.pop(0)
        return [[b"config-epoch", b"%d" % epoch], [host.encode(), b"6379"]]


def test_a_new_master_is_named_beside_the_former_one(caplog: pytest.LogCaptureFixture) -> None:
    sentinels = Answering([(1, "valkey-1"), (1, "valkey-1"), (2, "valkey-2")])

    with caplog.at_level(logging.INFO, logger="switchyard.broker"):
        for _ in range(3):
            sentinels.locate()

    assert caplog.messages == ["broker: the sentinels name valkey-2:6379 as the master, in place of valkey-1:6379"]
    assert sentinels.changes == 1
