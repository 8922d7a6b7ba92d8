"""The doctor names what a server of S3 refuses; the server here gives Amazon's answers, which HEAD has no body for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from switchyard.files.addresses import address_of
from switchyard.operations.findings.disk import look_at_storage
from tests.factories.s3 import CREDENTIALS

# Beginning of the bucket's name -> status and code.
ANSWERS = {"expired": (400, "ExpiredToken"), "elsewhere": (301, "PermanentRedirect"), "denied": (403, "AccessDenied")}


class Refusing(BaseHTTPRequestHandler):
    """Answers every request with the error of its bucket."""

    def do_GET(self) -> None:
        status, code = ANSWERS[self.path.strip("/").split("-")[0]]
        body = f"<Error><Code>{code}</Code><Message>said</Message></Error>".encode() if self.command == "GET" else b""
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(30)


@pytest.mark.parametrize(
    ("bucket", "seen", "step"),
    [
        ("expired", "was not reached, or refuses", "the credentials in the environment"),
        ("elsewhere", "was not reached, or refuses", "SWITCHYARD_STORAGE_URL"),
        ("denied", "the server refuses this user", "check the user's rights"),
    ],
)
def test_a_refusal_is_told_with_its_remedy(
    bucket: str, seen: str, step: str, refusing: str, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    address = address_of("TEST", f"s3://{bucket}-files/yard?endpoint_url={refusing}&region=us-east-1&path_style=1")
    settings.STORAGES = {**settings.STORAGES, "default": address.entry}

    (found,) = look_at_storage()

    assert seen in found.seen and ANSWERS[bucket][1] in found.seen
    assert step in found.next
    assert "127.0.0.1" not in found.seen + found.cause + found.next
