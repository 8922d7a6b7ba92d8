"""Redirects, changing names and proxies do not lead a request to where it must not go."""

from __future__ import annotations

import itertools
import socket

import pytest

from apps.outbound.connection import connect_tcp
from apps.outbound.errors import ForbiddenAddress, Unreachable
from apps.outbound.http import send
from tests.integration.outbound.listener import answering, listening

PUBLIC = "93.184.216.34"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "file:///etc/passwd", "gopher:"]
)
def test_a_redirect_is_an_answer_and_its_target_is_not_contacted(status: int, location: str, allow) -> None:
    with listening(answering(OK)) as target:
        allow(target)
        where = location.format(port=target.port)
        redirect = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
        with listening(answering(redirect)) as redirecting:
            answer = send("POST", allow(redirecting), body=b"{}", deadline_s=5, max_bytes=100)

    assert (answer.status, answer.headers["location"]) == (status, where)
    assert (redirecting.accepted, target.accepted) == (1, 0)


def test_a_name_whose_answer_alternates_never_leads_to_a_private_address(monkeypatch) -> None:
    answers = itertools.cycle([[PUBLIC], ["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["169.254.169.254"]])
    look_ups, connected = [], []

    def resolve(host: str, port: int, deadline_s: float) -> list[str]:
        look_ups.append(host)
        return next(answers)

    def connect(address: str, port: int, timeout_s: float) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr("apps.outbound.addresses.look_up", resolve)
    monkeypatch.setattr("apps.outbound.http.connect_tcp", connect)
    for _ in range(1_000):
        with pytest.raises((ForbiddenAddress, Unreachable)):
            send("GET", "https://rebinding.example/", deadline_s=5, max_bytes=10)

    assert len(look_ups) == 1_000
    assert connected == [PUBLIC] * 250


def test_the_connection_goes_to_the_checked_address_and_carries_the_name(monkeypatch) -> None:
    with listening(answering(OK)) as listener:
        connected = []

        def connect(address: str, port: int, timeout_s: float) -> socket.socket:
            connected.append((address, port))
            if address == "93.184.216.35":
                raise TimeoutError
            return socket.create_connection(("127.0.0.1", listener.port), timeout_s)

        monkeypatch.setattr("apps.outbound.addresses.look_up", lambda *asked: ("93.184.216.35", PUBLIC))
        monkeypatch.setattr("apps.outbound.http.connect_tcp", connect)
        answer = send(
            "POST",
            "http://Example.com:8443/a?b=c",
            headers={"Content-Type": "application/json", "Host": "evil.example", "Accept-Encoding": "gzip"},
            body=b"{}",
            deadline_s=5,
            max_bytes=10,
        )

    assert (answer.status, answer.body) == (200, b"ok")
    assert connected == [("93.184.216.35", 8443), (PUBLIC, 8443)]
    head, _, body = listener.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n") and body == b"{}"
    sent = [line.lower() for line in head.split(b"\r\n")[1:]]
    assert {b"host: example.com:8443", b"accept-encoding: identity", b"connection: close"} <= set(sent)
    assert len([line for line in sent if line.startswith((b"host", b"accept-encoding"))]) == 2


def test_a_proxy_in_the_environment_is_ignored(monkeypatch, allow) -> None:
    with listening(answering(OK)) as proxy, listening(answering(OK)) as target:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        send("GET", allow(target), deadline_s=5, max_bytes=10)

    assert (proxy.accepted, target.accepted) == (0, 1)


def test_an_address_that_is_not_the_checked_one_is_not_spoken_to(settings) -> None:
    with listening(answering(OK)) as listener, pytest.raises(Unreachable, match="another address"):
        # The system connects 0.0.0.0 to 127.0.0.1.
        connect_tcp("0.0.0.0", listener.port, 5)

    assert listener.requests == []
