"""HTTP servers on loopback: any handler's, and an endpoint that goes down and returns, and counts what reaches it."""

import contextlib
import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Answering(BaseHTTPRequestHandler):
    """Reads and answers, and prints nothing."""

    def body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def answer(self, status: int, content: bytes = b"", kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # of a sender that has given up
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None: ...


@contextmanager
def answers_of(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve with a handler on a free port until the block ends; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(30)


class Endpoint(ThreadingHTTPServer):
    """Answers 503 to paths with ``broken`` in them while it is ``down``, after ``go`` is set; 200 to all else."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.down, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.address}/{path}"


class _Answer(Answering):
    server: Endpoint

    def do_GET(self) -> None:
        self.body()
        self.server.asked.append(self.path)
        broken = self.server.down.is_set() and "broken" in self.path
        if broken:
            self.server.go.wait(60)
        self.answer(503 if broken else 200)

    do_POST = do_GET


@contextmanager
def listening_endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.go.set()
        server.shutdown()
        server.server_close()
