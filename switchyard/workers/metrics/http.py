"""HTTP server for ``/metrics`` and ``/health`` in a selector's loop: a process that forks must have no threads."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from switchyard.broker.cores import memory_here
from switchyard.broker.stores.pool_reports import PoolReport

LARGEST_REQUEST_BYTES = 8_192
MOST_CONNECTIONS = 32
LONGEST_CONNECTION_S = 5.0

logger = logging.getLogger("switchyard.workers")


class MetricsListener:
    """Server of ``GET /metrics`` and ``GET /health``, and nothing else, one request a connection.

    Args:
        render: Returns the metrics; called in the loop, so it must be quick.
        unhealthy_reason: Returns why ``/health`` answers 503; empty for 200.
        port: 0 finds a free one, see :attr:`port`.

    Raises:
        OSError: the port is taken.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        render: Callable[[], bytes],
        unhealthy_reason: Callable[[], str],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._selector = selector
        self._render = render
        self._unhealthy_reason = unhealthy_reason
        self._connections: dict[socket.socket, _Connection] = {}
        self._listener = socket.create_server((host, port), backlog=16)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def expire(self) -> None:
        """Close connections that are older than 5 s. Call it regularly."""
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if now > connection.deadline_s:
                self._close(connection)

    def close(self) -> None:
        """Stop listening and close all connections. In a forked child the parent's stay as they are."""
        for connection in self._connections.values():
            connection.socket.close()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # the client may be gone already
            accepted, _ = self._listener.accept()
            if len(self._connections) >= MOST_CONNECTIONS:
                accepted.close()
                return
            accepted.setblocking(False)
            connection = self._connections[accepted] = _Connection(accepted)
            self._selector.register(accepted, selectors.EVENT_READ, lambda: self._read(connection))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.request += data
        if not data or len(connection.request) > LARGEST_REQUEST_BYTES:
            self._close(connection)
        elif b"\r\n\r\n" in connection.request:
            connection.answer = self._answer(connection.request)
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, lambda: self._write(connection))
            self._write(connection)

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.answer)
        except BlockingIOError:
            return
        except OSError:
            sent = len(connection.answer)
        connection.answer = connection.answer[sent:]
        if not connection.answer:
            self._close(connection)

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD"):
            return _response("405 Method Not Allowed", b"only GET\n")
        if path == b"/health":
            why = self._unhealthy_reason()
            return _response("503 Service Unavailable" if why else "200 OK", f"{why or 'ok'}\n".encode())
        if path != b"/metrics":
            return _response("404 Not Found", b"see /metrics and /health\n")
        try:
            body = self._render()
        except Exception:
            # An error during a scrape must not terminate the pool.
            logger.exception("metrics could not be rendered")
            return _response("500 Internal Server Error", b"see the pool's log\n")
        return _response("200 OK", body, CONTENT_TYPE_LATEST, head=method == b"HEAD")

    def _close(self, connection: _Connection) -> None:
        self._connections.pop(connection.socket, None)
        self._selector.unregister(connection.socket)
        connection.socket.close()


class _Connection:
    def __init__(self, accepted: socket.socket) -> None:
        self.socket = accepted
        self.request = b""
        self.answer = b""
        self.deadline_s = time.monotonic() + LONGEST_CONNECTION_S


def _response(status: str, body: bytes, content_type: str = "text/plain", *, head: bool = False) -> bytes:
    lines = (
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        "\r\n",
    )
    return "\r\n".join(lines).encode() + (b"" if head else body)


class PoolCollector(Collector):
    """Reports of this machine's supervisors as metrics. Several reports of one pool, from several hosts, add up.

    Args:
        memory_bytes: Pool -> memory of its children; pools that are not in it show the sum of their reports.
    """

    def __init__(self, reports: Iterable[PoolReport], memory_bytes: dict[str, int] | None = None) -> None:
        self._reports = list(reports)
        self._memory = memory_bytes or {}

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("switchyard_worker_up", "1 while the pool has a child that works.", labels=["pool"])
        slots = GaugeMetricFamily("switchyard_worker_slots", "Messages that the pool can run at once.", labels=["pool"])
        busy = GaugeMetricFamily("switchyard_worker_slots_busy", "Messages that the pool runs now.", labels=["pool"])
        memory = GaugeMetricFamily(
            "switchyard_worker_memory_bytes", "Memory of the pool's children, shared pages split.", labels=["pool"]
        )
        limit = GaugeMetricFamily(
            "switchyard_worker_memory_limit_bytes", "Memory limit of the pool's container, if any.", labels=["pool"]
        )
        restarts = CounterMetricFamily(
            "switchyard_worker_restarts", "Children that ended and were started again.", labels=["pool", "reason"]
        )
        by_pool: defaultdict[str, list[PoolReport]] = defaultdict(list)
        for report in self._reports:
            by_pool[report.pool].append(report)
        for pool, reports in sorted(by_pool.items()):
            children = [child for report in reports for child in report.children]
            up.add_metric([pool], float(any(child["ready"] for child in children)))
            slots.add_metric([pool], sum(report.slots for report in reports))
            busy.add_metric([pool], sum(report.busy for report in reports))
            reported = sum(child["rss_bytes"] for child in children)
            memory.add_metric([pool], self._memory.get(pool, reported))
            if (limit_bytes := memory_here()) is not None:
                limit.add_metric([pool], limit_bytes)
            reasons = {reason for report in reports for reason in report.restarts}
            for reason in sorted(reasons):
                restarts.add_metric([pool, reason], sum(report.restarts.get(reason, 0) for report in reports))
        yield from (up, slots, busy, memory, limit, restarts)


class ChildrenCollector(Collector):
    """Counts and times of one pool's children, ended ones included, from their multiprocess files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        files = [str(path) for path in sorted(self._folder.glob("*.db")) if _is_readable(path)]
        yield from MultiProcessCollector.merge(files)


def exposition(folder: Path, report: PoolReport, memory_bytes: int) -> bytes:
    """Return a pool's metrics as Prometheus text.

    Args:
        folder: With the children's files.
        memory_bytes: Of the children, now.
    """
    registry = CollectorRegistry()
    registry.register(ChildrenCollector(folder))
    registry.register(PoolCollector([report], {report.pool: memory_bytes}))
    return generate_latest(registry)


def _is_readable(path: Path) -> bool:
    # A child creates an empty file and then sets its size.
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False
