"""Requests that never end, over raw sockets against the web without a proxy: cut, and nobody else notices."""

import contextlib
import json
import select
import socket
from pathlib import Path

import pytest

from tests.environment import SERVER
from tests.integration.serving.web_process import MIB, WebProcess, answer_of, flood, probing
from tests.waiting import wait_for


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder: Path = tmp_path_factory.mktemp("web")
    web = WebProcess(folder, SERVER.url)
    web.start()
    yield web
    web.stop()


START = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"POST /api/v1/emails HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS_HEADS = {
    "header lines": (START, b"X-Many: " + b"a" * 56 + b"\r\n"), "one header line": (START + b"X-Long: ", b"a" * 4096),
    "a header's name": (START, b"a" * 4096), "the URL": (b"GET /", b"a" * 4096),
    "the query": (b"GET /healthz?", b"a" * 4096),
}  # fmt: skip
MAIL = b'{"to": "ada@example.com", "template": "welcome"}'
JSON = {"Content-Type": "application/json"}
MOST_GROWN_MIB = 32


def refused(answer: bytes) -> bool:
    """Return whether a raw answer is the refusal of what is not HTTP, or of too large a head."""
    return answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b"Invalid HTTP request received.")


@pytest.mark.parametrize("what", ENDLESS_HEADS)
def test_an_endless_head_is_refused_and_cut(web, what):
    start, piece = ENDLESS_HEADS[what]

    with probing(web) as probe, web.connect() as client:
        client.sendall(start)
        sent = flood(client, piece, 150 * MIB)
        answer = answer_of(client)

    assert sent < 8 * MIB  # buffers of two sockets
    if answer:  # a reset may overtake it while the client is still sending
        assert refused(answer)
    assert probe.grown_mib <= MOST_GROWN_MIB


def test_a_head_of_30_kib_is_accepted(web):
    status, _, _ = web.request("GET", "/healthz", headers={"X-Long": "a" * 30_000})

    assert status == 200


@pytest.mark.parametrize(
    "request_bytes", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET /?\xff HTTP/1.1\r\nHost: localhost\r\n\r\n"]
)
def test_what_is_no_http_is_refused(web, request_bytes):
    with web.connect() as client:
        client.sendall(request_bytes)

        assert refused(answer_of(client))


@pytest.mark.parametrize("body", [b"Content-Length: 46\r\n", b"Transfer-Encoding: chunked\r\n"])
def test_the_body_of_a_request_that_asks_for_another_protocol_is_no_request(web, body):
    asking = START + b"Connection: Upgrade\r\nUpgrade: websocket\r\n" + body + b"\r\n"
    with web.connect() as client:
        client.sendall(asking + START + b"\r\n")
        client.shutdown(socket.SHUT_WR)

        assert answer_of(client).count(b"HTTP/1.1 200") <= 1


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-Trailer: a\r\n"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"a" * 4096),
        (b"", START * 100 + b"\r\n" + (START + b"\r\n") * 400),
    ],
    ids=["many trailers", "one trailer", "pipelined requests"],
)
def test_endless_trailers_and_many_pipelined_requests_are_cut(web, start, piece):
    with probing(web) as probe, web.connect() as client:
        client.sendall(start)
        sent = flood(client, piece, 100 * MIB)

    assert sent < 8 * MIB
    assert probe.grown_mib <= MOST_GROWN_MIB


def test_many_endless_heads_at_once_leave_the_web_as_it_was(web):
    with probing(web) as probe:
        for start, piece in ENDLESS_HEADS.values():
            with contextlib.ExitStack() as open_sockets:
                clients = [open_sockets.enter_context(web.connect()) for _ in range(10)]
                for client in clients:
                    client.sendall(start)
                    flood(client, piece, 10 * MIB)

    assert probe.grown_mib <= MOST_GROWN_MIB


def test_bodies_without_a_token_are_not_kept(web):
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
    head = (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000000\r\n"
        b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" + part
    )
    expected = {b"/api/v1/thumbnails": 401, b"/admin/login/": 413, b"/healthz": 413}
    with probing(web) as probe, contextlib.ExitStack() as open_sockets:
        for path, status in expected.items():
            for _ in range(15):
                client = open_sockets.enter_context(web.connect())
                client.sendall(head % path)
                client.settimeout(30)
                assert client.recv(12) == b"HTTP/1.1 %d" % status
                flood(client, b"a" * 65536, 10 * MIB)

    assert probe.grown_mib <= MOST_GROWN_MIB


def test_unfinished_small_bodies_hold_little_and_no_thread(web):
    threads_before = web.ps.num_threads()
    head = b"POST /api/v1/emails HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    with probing(web) as probe, contextlib.ExitStack() as open_sockets:
        clients = [open_sockets.enter_context(web.connect()) for _ in range(200)]
        statuses: list[bytes] = []
        for client in clients:
            client.sendall(head)
        for client in clients[:100]:
            client.setblocking(False)
            client.send(b"a" * 900_000)
        unanswered = select.poll()
        by_number = {client.fileno(): client for client in clients}
        for number in by_number:
            unanswered.register(number, select.POLLIN)

        def refused() -> int:
            for number, _ in unanswered.poll(0):
                unanswered.unregister(number)
                with contextlib.suppress(OSError):
                    statuses.append(by_number[number].recv(12))
            return statuses.count(b"HTTP/1.1 429")

        wait_for(lambda: refused() >= 150, what="most to be refused")
        assert web.ps.num_threads() - threads_before <= 16

    assert probe.grown_mib <= MOST_GROWN_MIB


def test_five_hundred_streams_of_one_token_are_capped(web):
    job_id = json.loads(web.request("POST", "/api/v1/emails", body=MAIL, headers=web.bearer | JSON)[2])["job_id"]
    request = (
        f"GET /api/v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {web.token}\r\n\r\n"
    ).encode()
    descriptors_before = web.ps.num_fds()
    with probing(web) as probe, contextlib.ExitStack() as open_sockets:
        clients = [open_sockets.enter_context(web.connect()) for _ in range(500)]
        statuses: list[bytes] = []
        for client in clients:
            client.sendall(request)
        for client in clients:
            statuses.append(client.recv(12))

        assert statuses.count(b"HTTP/1.1 200") == 32
        # The rest waited for too long while as many ran as may.
        assert statuses.count(b"HTTP/1.1 429") + statuses.count(b"HTTP/1.1 503") == 468
        assert web.ps.num_fds() - descriptors_before < 560
        assert web.ps.num_threads() < 100
        assert web.request("GET", "/api/v1/queues", headers=web.bearer)[0] == 200

    assert probe.grown_mib <= MOST_GROWN_MIB


@pytest.mark.sqlite
def test_a_database_that_is_moved_away_is_missed_and_not_made_again(web):
    database, away = web.folder / "db.sqlite3", web.folder / "away.sqlite3"
    assert web.request("GET", "/readyz")[0] == 200
    database.rename(away)
    try:
        status, _, body = web.request("GET", "/readyz")
        refused = web.request("POST", "/api/v1/emails", body=MAIL, headers=web.bearer | JSON)[0]
        assert not database.exists()
    finally:
        away.rename(database)

    assert status == 503
    assert not json.loads(body)["dependencies"]["database"]["ok"]
    assert refused == 503
    assert web.request("GET", "/readyz")[0] == 200
