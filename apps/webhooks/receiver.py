"""Webhook receiver for demos and tests, on loopback: endpoints that work, fail, fail at first, are gone or are slow.

Needs no Django: ``python -m apps.webhooks.receiver --port 0`` runs it alone. Not for production.
"""

import argparse
import functools
import io
import json
import re
import signal
import socket
import sys
import threading
from collections import Counter
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

HOST = "127.0.0.1"
SLOW_S = 30.0
FLAKY_FAILURES = 2
MAX_BODY_BYTES = 1024 * 1024
KEPT_COUNT = 10_000
PICTURE_SIZE = (1200, 800)
_SECRET = re.compile(r"whsec_[A-Za-z0-9+/_-]+={0,2}")


class Receiver(ThreadingHTTPServer):
    """The server. ``serve_forever`` runs it; ``stop`` ends it, together with waiting requests.

    Args:
        listener: Listening socket to serve on, or ``None`` for a free port on loopback; ``port`` chooses another.
        secrets_file: Text in which every ``whsec_…`` is a secret to verify with; read anew for each delivery.
        log_file: Gets a line of JSON for each delivery.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self,
        *,
        port: int = 0,
        listener: socket.socket | None = None,
        secrets_file: Path | None = None,
        log_file: Path | None = None,
    ) -> None:
        super().__init__((HOST, port), _Handler, bind_and_activate=listener is None)
        if listener is not None:
            self.socket.close()
            self.socket = listener
            self.server_address = listener.getsockname()
        self.secrets_file = secrets_file
        self.log_file = log_file
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._seen: Counter[str] = Counter()

    @property
    def url(self) -> str:
        """Root of the receiver, with a slash at the end."""
        return f"http://{HOST}:{self.server_address[1]}/"

    @property
    def log(self) -> list[dict[str, Any]]:
        """Logged requests, oldest first: ``id``, ``path``, ``status``, ``signature_ok`` (``None``: unknown), ``at``."""
        with self._lock:
            logged = self.log_file is not None and self.log_file.exists() and self.log_file.read_text()
        return [json.loads(line) for line in (logged or "").splitlines()]

    def stop(self) -> None:
        """Stop the receiver. Call this method from another thread than the serving one."""
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def count(self, webhook_id: str) -> int:
        """Count an attempt of a delivery and return its number."""
        with self._lock:
            if len(self._seen) >= KEPT_COUNT:
                self._seen.clear()
            self._seen[webhook_id] += 1
            return self._seen[webhook_id]

    def note(self, entry: dict[str, Any]) -> None:
        """Log a received request."""
        if self.log_file is not None:
            with self._lock, self.log_file.open("a") as lines:
                lines.write(json.dumps(entry) + "\n")

    def is_signed(self, body: bytes, headers: dict[str, str]) -> bool | None:
        """Return whether a known secret signed a delivery; ``None`` when no secret is known."""
        file = self.secrets_file
        known = set(_SECRET.findall(file.read_text())) if file is not None and file.exists() else set()
        return any(_verifies(secret, body, headers) for secret in known) if known else None


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 60

    def do_POST(self) -> None:
        body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY_BYTES))
        headers = {name.lower(): value for name, value in self.headers.items()}
        webhook_id = headers.get("webhook-id", "")
        signature_ok = self.server.is_signed(body, headers)
        status = self._status_for(webhook_id, signature_ok)
        self.server.note(
            {
                "id": webhook_id,
                "path": self.path,
                "status": status,
                "signature_ok": signature_ok,
                "at": datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            }
        )
        self._answer(status, "application/json", json.dumps({"status": status}).encode())

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/image.jpg":
            self._answer(200, "image/jpeg", picture())
        else:
            status = 200 if path in ("/", "/healthy", "/healthz") else 404
            self._answer(status, "application/json", json.dumps({"status": status}).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing on standard error."""

    def _status_for(self, webhook_id: str, signature_ok: bool | None) -> int:
        path = self.path.partition("?")[0]
        if path == "/healthy":
            return 401 if signature_ok is False else 200
        if path == "/flaky":
            return 500 if self.server.count(webhook_id) <= FLAKY_FAILURES else 200
        if path == "/slow":
            self.server.stopping.wait(SLOW_S)
        return {"/broken": 500, "/gone": 410, "/slow": 200}.get(path, 404)

    def _answer(self, status: int, content_type: str, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            # The sender closed the connection before the answer, as with /slow.
            self.close_connection = True


@functools.cache
def picture() -> bytes:
    """Return a sample picture as JPEG."""
    from PIL import Image

    ramp = Image.linear_gradient("L").resize(PICTURE_SIZE)
    drawn = Image.merge("RGB", (ramp, ramp.transpose(Image.Transpose.ROTATE_180), ramp.point(lambda level: level // 2)))
    content = io.BytesIO()
    drawn.save(content, "JPEG")
    return content.getvalue()


def _verifies(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def main() -> None:
    """Run the receiver from the command line until SIGTERM or SIGINT, which stop it at once."""
    parser = argparse.ArgumentParser(description="A webhook receiver for demos and tests.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one")
    parser.add_argument("--secrets-file", type=Path, help="text with the secrets (whsec_…) to verify with")
    parser.add_argument("--log-file", type=Path, help="file that gets a line of JSON for each delivery")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: sys.exit(0))
    with Receiver(**vars(parser.parse_args())) as receiver:
        sys.stdout.write(f"ready: {receiver.url}\n")
        sys.stdout.flush()
        receiver.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
