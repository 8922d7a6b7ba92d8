"""TLS with verification: the right certificates work, and each wrong one is refused in the words of TLS."""

import re
import ssl
from collections.abc import Iterator

import pytest

from switchyard.broker.errors import BrokerUnavailable
from switchyard.broker.redis import acl
from switchyard.broker.redis.calls import RedisCalls
from switchyard.broker.redis.connections import connect
from switchyard.broker.redis.server_errors import reason
from tests.chaos.server import server_binary
from tests.sentinels import Watched
from tests.tls import Authority, GuardedServer

USERS = re.sub(r"user (\S+) off", r"user \1 on >\1", acl.render())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority")


@pytest.fixture(scope="module")
def server(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedServer]:
    """A server that clients need a certificate for."""
    folder = tmp_path_factory.mktemp("tls") / "server"
    server = GuardedServer(folder, server_binary("redis-server"), USERS, authority=authority, clients=True)
    yield server
    server.close()


def ask(url: str) -> bytes:
    calls = RedisCalls(connect(url, profile="quick"), budget_s=0.3)
    try:
        answer: bytes = calls.command("PING")
        return answer
    finally:
        calls.close()


def with_certificate(authority: Authority) -> str:
    file, key = authority.issue("client")
    return f"&ssl_certfile={file}&ssl_keyfile={key}"


def test_a_client_with_a_certificate_reaches_a_server_with_one(server, authority):
    query = f"?ssl_ca_certs={authority.file}{with_certificate(authority)}"

    assert ask(server.url("switchyard-worker", query)) == b"PONG"


@pytest.mark.parametrize("profile", ["quick", "normal"])
def test_a_client_without_a_login_is_not_dropped_for_the_tickets_that_a_server_sends_first(server, authority, profile):
    with connect(
        server.url(query=f"?ssl_ca_certs={authority.file}{with_certificate(authority)}"), profile=profile
    ) as client:
        assert client.ping()
        assert client.ping()


def test_an_unknown_authority_is_said(server):
    with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
        ask(server.url())


@pytest.mark.parametrize(
    ("options", "said"),
    [({"address": "127.0.0.2"}, "IP address mismatch"), ({"days": -1}, "certificate has expired")],
    ids=["name", "expired"],
)
def test_a_wrong_certificate_of_the_server_is_said(authority, tmp_path, options, said):
    certificate = authority.issue("wrong", **options)  # type: ignore[arg-type]
    server = GuardedServer(
        tmp_path / "server", server_binary("redis-server"), USERS, authority=authority, certificate=certificate
    )
    try:
        with pytest.raises(BrokerUnavailable, match=said) as refused:
            ask(server.url(query=f"?ssl_ca_certs={authority.file}"))
        assert reason(refused.value).startswith(f"TLS failed: {said}")
    finally:
        server.close()


def test_tls_holds_for_sentinels_and_servers_also_after_a_failover(authority, tmp_path, monkeypatch):
    # To load the system's authorities costs 40 ms of processor time, and a sentinel is asked every second.
    of_the_system: list[object] = []
    monkeypatch.setattr(ssl.SSLContext, "load_default_certs", lambda context, *_: of_the_system.append(context))
    with Watched(tmp_path / "watched", server_binary("redis-server"), authority=authority) as watched:
        trusted = f"?ssl_ca_certs={authority.file}"
        with pytest.raises(BrokerUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
            ask(watched.url_of(watched.sentinels))
        assert of_the_system
        of_the_system.clear()
        with pytest.raises(BrokerUnavailable, match="no sentinel names the master"):
            ask(watched.url_of(watched.sentinels, trusted, plain=True))
        plain_sentinels = ask(watched.url_of(watched.sentinels, f"{trusted}&sentinel_ssl=no", plain=True))
        calls, former = RedisCalls(connect(watched.url)), watched.master
        calls.command("SET", "before", "1")
        watched.wait_until_settled()
        watched.fail_over()
        former.kill()
        calls.command("SET", "after", "2", budget_s=10)
        values = watched.master.admin.mget("before", "after")
        calls.close()

    assert plain_sentinels == b"PONG"
    assert values == [b"1", b"2"]
    assert of_the_system == []
