"""Slow, endless, lying and redirecting servers end in time, in little memory and never inside; with gevent as well."""

import contextlib
import gzip
import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

import psutil
import pytest

from apps.outbound.connection import connect_tcp
from apps.outbound.errors import DeadlineExceeded, ForbiddenAddress, OutboundError, TooLarge, Unreachable
from apps.outbound.http import send
from tests.integration.outbound.listener import Listener, answering, dripping, flooding, listening, read_request

OK = b"HTTP/1.1 200 OK\r\n"
SHORT = OK + b"Content-Length: 2\r\n\r\nok"
DEADLINE_S = 0.4
CERTIFICATE = Path(__file__).parent / "certificates" / "server.pem"


def silent(listener: Listener, client: socket.socket) -> None:
    listener.stopped.wait()


def one_byte_of_tls(listener: Listener, client: socket.socket) -> None:
    """Begin a TLS record of 16 KiB and send it byte by byte."""
    client.recv(65536)
    client.sendall(struct.pack("!BHH", 22, 0x0303, 16384))
    while not listener.pause(0.1):
        client.sendall(b"\0")


SLOW = {
    "nothing": silent,
    "headers": dripping(b"", b"H"),
    "header lines": dripping(OK, b"X-Slow: 1\r\n"),
    "a body of a known length": dripping(OK + b"Content-Length: 100000\r\n\r\n", b"."),
    "a body until the end of the stream": dripping(OK + b"\r\n", b"."),
    "chunks": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    "a chunk's size": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "trailers": dripping(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: 1\r\n"),
    "interim answers": dripping(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": dripping(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
}

ENDLESS = {
    "header lines": flooding(OK, b"X-Many: 1\r\n"),
    "one header": flooding(OK + b"X-Long: ", b"a"),
    "a status line": flooding(b"HTTP/1.1 200 ", b"a"),
    "headers of 60 KiB": flooding(OK, b"X-Long: " + b"a" * 60_000 + b"\r\n"),
    "interim answers": flooding(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": flooding(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body": flooding(OK + b"\r\n", b"a"),
    "a body of a known length": flooding(OK + b"Content-Length: 99999999999\r\n\r\n", b"a"),
    "chunks": flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"a" * 1024 + b"\r\n"),
    "chunks of one byte": flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "a chunk's size": flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "a chunk's extension": flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n1;", b"a"),
    "trailers": flooding(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Many: 1\r\n"),
}


@pytest.mark.parametrize(
    ("what", "truncate"), [*((what, False) for what in SLOW), ("a body until the end of the stream", True)]
)
def test_a_server_that_drips_is_left_at_the_deadline_and_not_before(what, truncate, allow):
    with listening(SLOW[what]) as listener:
        url = allow(listener)
        started = time.monotonic()

        with pytest.raises(DeadlineExceeded):
            send("GET", url, deadline_s=DEADLINE_S, max_bytes=65536, truncate=truncate)

        assert time.monotonic() - started >= DEADLINE_S - 0.01


@pytest.mark.parametrize("act", [silent, one_byte_of_tls])
def test_a_tls_handshake_that_never_ends_is_left_at_the_deadline(act, allow):
    with listening(act) as listener, pytest.raises(DeadlineExceeded):
        send("GET", allow(listener).replace("http:", "https:"), deadline_s=DEADLINE_S, max_bytes=65536)


def test_a_server_that_never_reads_is_left_at_the_deadline(allow):
    with listening(silent) as listener, pytest.raises(DeadlineExceeded):
        send("POST", allow(listener), body=b"a" * 16 * 1024 * 1024, deadline_s=DEADLINE_S, max_bytes=65536)


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_answer_is_refused_at_its_limit_with_little_memory(what, allow):
    process = psutil.Process()
    with listening(ENDLESS[what]) as listener:
        url = allow(listener)
        before_bytes = process.memory_info().rss

        with pytest.raises((TooLarge, Unreachable)):  # by its limit: the deadline is another error
            send("GET", url, deadline_s=30, max_bytes=65536)

        assert process.memory_info().rss - before_bytes < 5 * 1024 * 1024


def test_an_endless_body_is_cut_where_the_caller_wants_only_its_beginning(allow):
    with listening(ENDLESS["a body"]) as listener:
        answer = send("GET", allow(listener), deadline_s=5, max_bytes=65536, truncate=True)

    assert (answer.status, len(answer.body), answer.truncated) == (200, 65536, True)


@pytest.mark.parametrize("size", [65535, 65536, 65537])
def test_a_body_of_exactly_the_limit_is_taken_and_one_byte_more_is_not(size, allow):
    with listening(answering(OK + b"\r\n" + b"a" * size)) as listener:
        url = allow(listener)

        cut = send("GET", url, deadline_s=5, max_bytes=65536, truncate=True)
        if size > 65536:
            with pytest.raises(TooLarge):
                send("GET", url, deadline_s=5, max_bytes=65536)

    assert (len(cut.body), cut.truncated) == (min(size, 65536), size > 65536)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", ", ".join(["gzip"] * 200)])
def test_a_compressed_body_is_never_decompressed(coding, allow):
    packed = gzip.compress(gzip.compress(bytes(20 * 1024 * 1024))) if "gzip" in coding else zlib.compress(bytes(10**7))
    head = OK + f"Content-Encoding: {coding}\r\nContent-Length: {len(packed)}\r\n\r\n".encode()
    with listening(answering(head + packed)) as listener:
        answer = send("GET", allow(listener), deadline_s=5, max_bytes=65536)

    assert answer.body == packed
    assert b"accept-encoding: identity" in listener.requests[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        *(b"", b"\0" * 100, b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc canary\r\n\r\n"),
        *(b"HTTP/1.1 99999 canary\r\n\r\n", b"220 mail.example ESMTP canary\r\n"),
        *(OK + b"Content-Length: 100\r\n\r\nshort", OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\ncanary"),
        *(OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\ncanary\r\n", OK + b"X-Cut"),
    ],
)
def test_what_is_no_http_is_unreachable_and_is_not_quoted(answer, allow):
    with listening(answering(answer)) as listener:
        url = allow(listener)

        try:
            status = send("GET", url + "canary?canary", deadline_s=5, max_bytes=65536).status
        except Unreachable as error:
            assert "canary" not in str(error)
        else:
            assert (answer, status) == (OK + b"X-Cut", 200)


@pytest.mark.parametrize("interim", [b"100 Continue", b"102 Processing", b"103 Early Hints"])
def test_interim_answers_are_skipped(interim, allow):
    early = b"HTTP/1.1 " + interim + b"\r\nLink: </a.css>; rel=preload\r\n\r\n"

    with listening(answering(2 * early + OK + b"Content-Length: 2\r\nX-Mine: 1\r\n\r\nok")) as listener:
        answer = send("GET", allow(listener), deadline_s=10, max_bytes=100)

    assert (answer.status, answer.body, answer.headers["x-mine"]) == (200, b"ok", "1")
    assert "link" not in answer.headers


def test_a_refused_connection_is_unreachable(allow):
    with listening(silent) as listener:
        url = allow(listener)

    with pytest.raises(Unreachable, match="refused"):
        send("GET", url, deadline_s=5, max_bytes=10)


def test_an_answer_that_comes_before_the_body_is_read_counts(allow):
    def impatient(listener: Listener, client: socket.socket) -> None:
        client.recv(1)
        client.sendall(b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n")
        read_request(listener, client)

    with listening(impatient) as listener:
        answer = send("POST", allow(listener), body=b"a" * 100_000, deadline_s=5, max_bytes=65536)

    assert answer.status == 410


def test_a_request_leaves_no_socket_and_no_watchdog_behind(allow):
    process = psutil.Process()
    with listening(answering(SHORT)) as listener:
        url = allow(listener)
        send("GET", url, deadline_s=5, max_bytes=65536)
        before = process.num_fds()
        for _ in range(20):
            send("GET", url, deadline_s=5, max_bytes=65536)

        assert process.num_fds() <= before + 1


def tls_server(listener: Listener, client: socket.socket) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with context.wrap_socket(client, server_side=True) as secure:
        read_request(listener, secure)
        secure.sendall(SHORT)


def test_a_certificate_counts_for_the_name_in_the_url_not_for_the_address(monkeypatch):
    trusting = ssl.create_default_context(cafile=str(CERTIFICATE.with_name("authority.pem")))
    with listening(tls_server) as listener:

        def connect(address: str, port: int, timeout_s: float) -> socket.socket:
            assert (address, port) == ("93.184.216.34", 443)
            return socket.create_connection(("127.0.0.1", listener.port), timeout_s)

        def request(host: str) -> int:
            return send("POST", f"https://{host}/hook", body=b"{}", deadline_s=5, max_bytes=100).status

        monkeypatch.setattr("apps.outbound.addresses.look_up", lambda *asked: ("93.184.216.34",))
        monkeypatch.setattr("apps.outbound.http.connect_tcp", connect)
        monkeypatch.setattr("apps.outbound.http._tls", lambda: trusting)
        assert (request("example.com"), request("93.184.216.34")) == (200, 200)
        assert listener.requests[0].startswith(b"POST /hook HTTP/1.1\r\n")
        assert b"\r\nhost: example.com\r\n" in listener.requests[0]
        with pytest.raises(Unreachable, match=r"not trusted.*mismatch"):
            request("other.example")
        with pytest.raises(Unreachable, match="not trusted"):
            monkeypatch.setattr("apps.outbound.http._tls", ssl.create_default_context)
            request("example.com")
        assert len(listener.requests) == 2


HEADS = [
    *(b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 99999999999999999999 OK\r\n", b"HTTP/1.1 -1 OK\r\n", b"HTTP/9.9 200 OK\r\n"),
    *(b"HTTP/1.1 \xff\xfe\r\n", b"\r\n", b"HTTP/1.1 101 Switching Protocols\r\n", b"HTTP/1.1 204 No Content\r\n"),
    *(b"HTTP/1.1 304 Not Modified\r\n", b"ICY 200 OK\r\n"),
]
FIELDS = [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: -5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length: 5, 6\r\nTransfer-Encoding: chunked\r\n",
    b"Content-Length: \xb2\r\nX: \xff\r\n",
    b"Content-Encoding: gzip\r\nTransfer-Encoding: gzip, chunked\r\n",
    b": no name\r\n folded\r\nno colon\r\n",
    b"Content-Length: 99999999999999999999999999\r\n",
]
BODIES = [
    *(b"-5\r\nhello\r\n0\r\n\r\n", b"-1\r\n" + b"a" * 100, b"ffffffffffffffffffffffffffffffff\r\nhello"),
    *(b"0x5\r\nhello\r\n0\r\n\r\n", b"\xb2\r\nhello", b"5_0\r\nhello", b"", b"5\r\nhello\r\n0\r\n-3: a\r\n\r\n"),
]
SHAPES = [(head, field, body) for head in HEADS for field in FIELDS for body in BODIES]


def test_every_hostile_answer_ends_as_an_error_of_the_client_or_as_an_answer(allow):
    answers = iter(SHAPES)

    def hostile(listener: Listener, client: socket.socket) -> None:
        read_request(listener, client)
        head, field, body = next(answers)
        client.sendall(head + field + b"\r\n" + body)

    with listening(hostile) as listener:
        url = allow(listener)
        for _ in SHAPES:
            with contextlib.suppress(OutboundError):
                send("GET", url, deadline_s=2.0, max_bytes=65536, truncate=True)

    assert len(SHAPES) == 640


PUBLIC = "93.184.216.34"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/", "//127.0.0.1:{port}/", "file:///etc/passwd", "gopher:"]
)
def test_a_redirect_is_an_answer_and_its_target_is_not_contacted(status, location, allow):
    with listening(answering(SHORT)) as target:
        allow(target)
        where = location.format(port=target.port)
        redirect = f"HTTP/1.1 {status} Elsewhere\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()
        with listening(answering(redirect)) as redirecting:
            answer = send("POST", allow(redirecting), body=b"{}", deadline_s=5, max_bytes=100)

    assert (answer.status, answer.headers["location"]) == (status, where)
    assert (redirecting.accepted, target.accepted) == (1, 0)


def test_a_name_whose_answer_alternates_never_leads_to_a_private_address(monkeypatch):
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

    assert (len(look_ups), connected) == (1_000, [PUBLIC] * 250)


def test_the_connection_goes_to_the_checked_address_and_carries_the_name(monkeypatch):
    with listening(answering(SHORT)) as listener:
        connected = []

        def connect(address: str, port: int, timeout_s: float) -> socket.socket:
            connected.append((address, port))
            if address == "93.184.216.35":
                raise TimeoutError
            return socket.create_connection(("127.0.0.1", listener.port), timeout_s)

        monkeypatch.setattr("apps.outbound.addresses.look_up", lambda *asked: ("93.184.216.35", PUBLIC))
        monkeypatch.setattr("apps.outbound.http.connect_tcp", connect)
        url = "http://Example.com:8443/a?b=c"
        headers = {"Content-Type": "application/json", "Host": "evil.example", "Accept-Encoding": "gzip"}
        answer = send("POST", url, headers=headers, body=b"{}", deadline_s=5, max_bytes=10)

    assert (answer.status, answer.body) == (200, b"ok")
    assert connected == [("93.184.216.35", 8443), (PUBLIC, 8443)]
    head, _, body = listener.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n") and body == b"{}"
    sent = [line.lower() for line in head.split(b"\r\n")[1:]]
    assert {b"host: example.com:8443", b"accept-encoding: identity", b"connection: close"} <= set(sent)
    assert len([line for line in sent if line.startswith((b"host", b"accept-encoding"))]) == 2


def test_a_proxy_in_the_environment_is_ignored(monkeypatch, allow):
    with listening(answering(SHORT)) as proxy, listening(answering(SHORT)) as target:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)

        send("GET", allow(target), deadline_s=5, max_bytes=10)

    assert (proxy.accepted, target.accepted) == (0, 1)


def test_an_address_that_is_not_the_checked_one_is_not_spoken_to(settings):
    with listening(answering(SHORT)) as listener, pytest.raises(Unreachable, match="another address"):
        # The system connects 0.0.0.0 to 127.0.0.1.
        connect_tcp("0.0.0.0", listener.port, 5)

    assert listener.requests == []


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(("longest_s", "usual_s"), [(8.0, 1.0), pytest.param(2.5, 0.25, marks=pytest.mark.long)])
def test_fifty_hostile_servers_end_in_time_and_do_not_slow_a_healthy_one(longest_s, usual_s):
    acts = [*SLOW.values(), *ENDLESS.values()] * 2 + [silent] * 6
    with contextlib.ExitStack() as stack:
        healthy = stack.enter_context(listening(answering(SHORT)))
        hostile = [stack.enter_context(listening(act)) for act in acts]
        handshakes = [stack.enter_context(listening(act)) for act in (silent, one_byte_of_tls)]
        everyone = [healthy, *hostile, *handshakes]
        urls = [each.url for each in hostile] + [each.url.replace("http:", "https:") for each in handshakes]

        allowed = {"SWITCHYARD_ALLOWED_PRIVATE_ADDRESSES": " ".join(f"127.0.0.1:{each.port}" for each in everyone)}

        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.outbound.greenlets", healthy.url, *urls],
            cwd=ROOT, env=os.environ | allowed, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip

    seen = json.loads(done.stdout)
    assert Counter(outcome for outcome, _ in seen["beside"]) == {"200": 40}
    assert {outcome for outcome, _ in seen["hostile"]} <= {"DeadlineExceeded", "TooLarge", "Unreachable"}
    assert Counter(outcome for outcome, _ in seen["hostile"])["DeadlineExceeded"] >= len(SLOW) * 2 + 8
    assert max(seconds for _, seconds in seen["hostile"]) < longest_s
    assert sorted(seconds for _, seconds in seen["beside"])[37] < usual_s
