"""``ops/nginx.conf`` in a real nginx: what it keeps from the web, and what it tells it."""

import contextlib
import http.client
import json
import re
import select
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.conf import settings

from switchyard.embedded.server import free_port
from switchyard.workers.shared.fork import die_with_parent
from tests.factories.web import serving
from tests.integration.serving.web_process import MIB, answer_of
from tests.tls import Authority
from tests.waiting import wait_for

MAIN = """
daemon off; master_process off; pid nginx.pid; error_log stderr;
events { worker_connections 512; }
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include switchyard.conf;
}
"""
START = b"GET /some HTTP/1.1\r\nHost: localhost\r\n"


class Upstream:
    """Tells what it was asked; streams at ``/events`` until it may end, and sends a large answer at ``/large``."""

    def __init__(self) -> None:
        self.asked = 0
        self.sent_large = threading.Event()
        self.may_end = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        size = 0
        while True:
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        seen = {"client": scope["client"][0], "scheme": scope["scheme"], "size": size}
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        streams = scope["path"] == "/events"
        head = [(b"x-accel-buffering", b"no")] if streams else []
        await send({"type": "http.response.start", "status": 200, "headers": head})
        if streams:
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            while not self.may_end.is_set():
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
        body = b"x" * 20 * MIB if scope["path"] == "/large" else json.dumps(seen | {"headers": headers}).encode()
        await send({"type": "http.response.body", "body": body})
        if scope["path"] == "/large":
            self.sent_large.set()


class Proxy:
    """Debian's nginx with the project's file: other addresses and certificate, its clients' times a second each."""

    def __init__(self, folder: Path, upstream: str) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        assert program is not None, "nginx is not on PATH; run: sudo apt install nginx (or bin/test --without nginx)"
        certificate, key = Authority(folder / "tls").issue("proxy")
        self.port, self.plain_port = free_port(), free_port()
        text = (settings.BASE_DIR / "ops" / "nginx.conf").read_text()
        for old, new in {
            "server 127.0.0.1:8000;": f"server {urlsplit(upstream).netloc};",
            "listen 80;": f"listen 127.0.0.1:{self.plain_port};",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "/etc/ssl/switchyard/cert.pem": str(certificate),
            "/etc/ssl/switchyard/key.pem": str(key),
        }.items():
            assert old in text
            text = text.replace(old, new)
        text, found = re.subn(r"((?:header|body|keepalive|send)_timeout) \d+s;", r"\1 1s;", text)
        assert found == 4
        (folder / "switchyard.conf").write_text(text)
        (folder / "nginx.conf").write_text(MAIN)
        command = [program, "-p", str(folder), "-c", "nginx.conf"]
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        self._clients = contextlib.ExitStack()
        self._process = subprocess.Popen(command, preexec_fn=die_with_parent)
        wait_for(self._listens, what="nginx to listen")

    def stop(self) -> None:
        self._clients.close()
        self._process.terminate()
        self._process.wait(30)

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), timeout=30))
        return self._clients.enter_context(client)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> http.client.HTTPResponse:
        """Send a request; return its answer, unread."""
        connection = http.client.HTTPConnection("localhost")
        self._clients.callback(connection.close)
        connection.sock = self.connect()
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        return self._clients.enter_context(connection.getresponse())

    def _listens(self) -> bool:
        assert self._process.poll() is None
        try:
            self.connect().close()
        except OSError:
            return False
        return True


@pytest.fixture
def upstream():
    return Upstream()


@pytest.fixture
def proxy(upstream, tmp_path):
    with serving(upstream) as address:
        running = Proxy(tmp_path, address)
        yield running
        upstream.may_end.set()
        running.stop()


def problem(answer: http.client.HTTPResponse, status: int) -> dict[str, Any]:
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    document: dict[str, Any] = json.loads(answer.read())
    assert document["status"] == status
    return document


def test_the_web_is_told_who_asks_whatever_the_client_claims(proxy):
    claimed = {"X_Forwarded_For": "203.0.113.7", "X_Forwarded_Proto": "http"}
    seen = json.loads(proxy.request("POST", "/some", b"x" * 3 * MIB, Host="yard.example:1", **claimed).read())

    assert (seen["client"], seen["scheme"], seen["size"]) == ("127.0.0.1", "https", 3 * MIB)
    assert (seen["headers"]["x-forwarded-for"], seen["headers"]["host"]) == ("127.0.0.1", "yard.example:1")


def test_plain_http_is_redirected_and_metrics_are_not_forwarded(proxy, upstream):
    connection = http.client.HTTPConnection("127.0.0.1", proxy.plain_port, timeout=30)
    connection.request("GET", "/admin/?a=1", headers={"Host": "yard.example"})
    answer = connection.getresponse()
    connection.close()

    assert (answer.status, answer.headers["Location"]) == (301, "https://yard.example/admin/?a=1")
    assert (proxy.request("GET", "/metrics").status, upstream.asked) == (404, 0)


def test_too_large_a_body_is_refused_before_the_web_sees_it(proxy, upstream):
    with proxy.connect() as client:
        client.sendall(b"POST /some HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99000000\r\n\r\n")
        with http.client.HTTPResponse(client) as answer:
            answer.begin()

            assert "21 MiB" in problem(answer, 413)["detail"]
    assert upstream.asked == 0


def test_slow_and_idle_clients_are_cut_before_the_web_sees_them(proxy, upstream):
    silent, head, body, idle = (proxy.connect() for _ in range(4))
    head.sendall(START + b"X-Slow: a")
    body.sendall(b"POST /some HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000\r\n\r\nx")
    idle.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")  # answered, then kept

    answers = [answer_of(client) for client in (silent, head, body, idle)]

    assert ([answer.count(b"HTTP/1.1 200") for answer in answers], upstream.asked) == ([0, 0, 0, 0], 0)


def test_too_large_a_head_is_refused(proxy, upstream):
    with proxy.connect() as client:
        client.sendall(START + b"X-Long: " + b"a" * 9_000 + b"\r\n\r\n")

        assert answer_of(client).startswith(b"HTTP/1.1 400 ")
    assert upstream.asked == 0


def test_a_slow_reader_holds_nothing_of_the_web_and_is_cut(proxy, upstream):
    with proxy.connect() as client:
        client.sendall(START.replace(b"/some", b"/large") + b"\r\n")

        assert upstream.sent_large.wait(60)
        cut = select.poll()
        cut.register(client, 0)  # errors and ends alone
        assert cut.poll(60_000)


def test_event_streams_are_not_held_back_and_one_address_has_fifty(proxy):
    streams = [proxy.request("GET", "/events") for _ in range(50)]
    first = {stream.read(5) for stream in streams}

    refused = proxy.request("GET", "/events")

    assert (first, refused.headers["Retry-After"]) == ({b"first"}, "5")
    assert "this address" in problem(refused, 429)["detail"]
