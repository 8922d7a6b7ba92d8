"""The demo's client of the API, against a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from demo.sample import Client, RequestFailed


class Recorder(BaseHTTPRequestHandler):
    """Answers with what it was sent; drops the first request to ``/drop`` without an answer."""

    dropped = 0

    def do_POST(self) -> None:
        if self.path == "/drop" and not Recorder.dropped:
            Recorder.dropped += 1
            self.connection.close()
            return
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"path": self.path, "headers": dict(self.headers), "body": body.decode()}
        self.send_response(418 if self.path == "/teapot" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


def test_request_carries_token_key_and_json(site: str) -> None:
    answer = Client(site, "sy_token").ask("POST", "/api/v1/emails", expect=200, json={"to": "a"}, key="demo-1")

    assert answer["path"] == "/api/v1/emails"
    assert json.loads(answer["body"]) == {"to": "a"}
    assert answer["headers"]["Authorization"] == "Bearer sy_token"
    assert answer["headers"]["Idempotency-Key"] == "demo-1"
    assert answer["headers"]["Content-Type"] == "application/json"


def test_anonymous_request_carries_no_token(site: str) -> None:
    answer = Client(site, "sy_token").send("POST", "/events", body=b"{}", headers={"webhook-id": "1"})

    assert "Authorization" not in answer.json()["headers"]


def test_address_that_the_api_gave_is_used_as_it_is(site: str) -> None:
    answer = Client(site, "sy_token").send("POST", f"{site}api/v1/jobs/1/result", json={})

    assert answer.json()["path"] == "/api/v1/jobs/1/result"


def test_answer_that_was_not_expected_is_an_error_that_quotes_it(site: str) -> None:
    with pytest.raises(RequestFailed, match=r"POST /teapot: answered 418 instead of 202: .*teapot"):
        Client(site, "sy_token").ask("POST", "/teapot", expect=202, json={})


def test_lost_answer_is_asked_for_again_where_a_key_makes_that_harmless(site: str) -> None:
    Recorder.dropped = 0
    with pytest.raises(RequestFailed):
        Client(site, "sy_token").send("POST", "/drop", json={})

    Recorder.dropped = 0
    assert Client(site, "sy_token").send("POST", "/drop", json={}, key="demo-1").status == 200


def test_site_that_is_down_is_an_error_that_names_the_request() -> None:
    with pytest.raises(RequestFailed, match="GET /api/v1/queues: "):
        Client("http://127.0.0.1:1/", "sy_token").send("GET", "/api/v1/queues")
