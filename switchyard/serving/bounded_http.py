"""HTTP/1.1 with bounds on what a client can make the web hold before a request reaches the application.

uvicorn bounds none of these with its fast parser: the size of a request's head, the time that a head may take,
connections, and pipelined requests. A refusal is a problem document, as those of the API are.

Source: docs/reference/http-api.md#limits
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from switchyard.api.problems import CONTENT_TYPE, Problem

KIB = 1024
MAX_HEAD_BYTES = 32 * KIB
HEAD_TIMEOUT_S = 10.0
# Discards the rest of a refused body for this long, so that the client reads the answer instead of a reset.
LINGER_S = 2.0
# A client that reads nothing of its answer for this long is cut.
READ_TIMEOUT_S = 30.0
# Answers that wait for their client to read on: each may hold a whole file and a thread.
MAX_SLOW_READERS = 64
MAX_CONNECTIONS = 512
MAX_PIPELINED = 16
# Largest piece given to the parser at once: the head's size is checked after each.
PIECE_BYTES = 16 * KIB

logger = logging.getLogger("switchyard.web")


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol on httptools with limits, for ``uvicorn --http``.

    A head above 32 KiB is answered with 431, one that takes longer than 10 s with 408, a malformed one with 400. Of
    more than 512 connections, or half of the process's file descriptors, the one that has waited longest for its client
    is closed; when all of them wait for the application, a new one is answered with 503. Of more than 64 clients that
    do not read their answer, the one that has read nothing for longest is cut.
    """

    _in_head = False
    _head_bytes = 0
    # Bytes since the last part of a body: trailers and chunk extensions reach no application.
    _silent_bytes = 0
    # Fault of the request, where the parser cannot tell.
    _fault: Problem | None = None
    # Whether whatever follows the present request is ignored.
    _is_last = False
    # The earliest request that is not answered; ``cycle`` is the latest.
    _running: RequestResponseCycle | None = None
    _waits_since_s = 0.0
    _unread_since_s = 0.0
    _head_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection; close the one that has waited longest where there are too many."""
        super().connection_made(transport)
        self._waits_since_s = self.loop.time()
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_timed_out)
        if len(self.connections) > max_connections():
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Release the timers, and the application of the earliest pipelined request."""
        self._cancel_timers()
        self._disconnect()
        if self._read_timer is not None:
            self._read_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse received bytes in pieces, and refuse the request once its head is above the limit."""
        if len(data) <= PIECE_BYTES and not self._in_head and not self._is_last:
            self._parse(data)
            return
        view = memoryview(data)
        while view and not self._is_last and not self.transport.is_closing():
            # A piece does not reach beyond the largest head.
            size = min(PIECE_BYTES, MAX_HEAD_BYTES - self._head_bytes) if self._in_head else PIECE_BYTES
            self._parse(view[:size])
            view = view[size:]

    def _parse(self, piece: bytes | memoryview) -> None:
        self._silent_bytes += len(piece)
        super().data_received(piece)  # type: ignore[arg-type]
        if self.transport is None or self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(piece)
            if self._head_bytes >= MAX_HEAD_BYTES:
                self._refuse(Problem(431, f"the request's head is larger than {MAX_HEAD_BYTES} bytes; send less"))
                return
        elif self._silent_bytes > 2 * MAX_HEAD_BYTES:
            self._refuse(Problem(400, "the request's body has too much between its parts; send less"))
            return
        if self._head_timer is None and (self._in_head or self._waits_for_request()):
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_timed_out)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        """End a head and start the application.

        Raises:
            RuntimeError: too many pipelined requests, or an upgrade with a body; the parser turns it into a refusal.
        """
        self._in_head = False
        self._silent_bytes = 0
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RuntimeError(f"more than {MAX_PIPELINED} pipelined requests")
        upgrades = self.parser.should_upgrade()
        if upgrades and any(_tells_a_body(name, value) for name, value in self.headers):
            # The parser would take the body for the next request.
            self._fault = Problem(400, "a request with a body cannot ask for an upgrade; send it without Upgrade")
            raise RuntimeError(self._fault.detail)
        super().on_headers_complete()
        if upgrades:  # answered as if it did not ask; what follows may be of the other protocol
            self._is_last = True
            self.cycle.keep_alive = False
        # Trailers of the body are appended here; they reach no application.
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Pass a part of the body on."""
        self._silent_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._silent_bytes = 0
        super().on_message_complete()
        if self._linger_timer is not None:  # the refused body has ended: the connection can be used again
            self._linger_timer.cancel()
            self._linger_timer = None
            self.cycle.more_body = False

    def on_response_complete(self) -> None:
        """End a response; a client that still sends the body has 2 s to end it."""
        self._waits_since_s = self.loop.time()
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._linger_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def pause_writing(self) -> None:
        """Hold the application back; cut the client unless it reads on within 30 s, earlier when many do not."""
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(READ_TIMEOUT_S, self.transport.abort)
            self._unread_since_s = self.loop.time()
            slow = [other for other in self.connections if isinstance(other, BoundedHttp) and other._reads_nothing()]
            if len(slow) > MAX_SLOW_READERS:
                min(slow, key=lambda other: other._unread_since_s).transport.abort()

    def resume_writing(self) -> None:
        """Let the application go on."""
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse a request that is not HTTP."""
        self._refuse(self._fault or Problem(400, "the request is not valid HTTP/1.1; see how it was encoded"))

    def _unsupported_upgrade_warning(self) -> None:
        """Log nothing: a client may ask."""

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._waits_for_request():  # a pipelined head: the time counts from the answer before it
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._head_timed_out)
        elif self._in_head:
            self._refuse(Problem(408, f"the request's head took longer than {HEAD_TIMEOUT_S:g} s; send it at once"))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer with a problem document and close; close only if the answer to an earlier request is due."""
        self._cancel_timers()
        if self._is_next():
            self.transport.write(_encoded(problem, self.server_state.default_headers))
        logger.warning("request refused before the application: %s %s", problem.status, problem.detail)
        self.pipeline.clear()
        self._disconnect()
        self.transport.close()

    def _is_next(self) -> bool:
        """Return whether the request that is being received is the next to be answered."""
        running = self._running
        if running is None or running.response_complete:
            return running is None or not running.more_body
        return running is self.cycle and running.more_body and not running.response_started

    def _disconnect(self) -> None:
        """Tell the running application that nobody waits for its answer."""
        if self._running is not None:
            self._running.disconnected = True
            self._running.message_event.set()

    def _waits_for_request(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _reads_nothing(self) -> bool:
        return self._read_timer is not None and not self.transport.is_closing()

    def _waits_for_client(self) -> bool:
        return self._waits_for_request() or self._reads_nothing() or self.cycle.more_body

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, BoundedHttp) and other is not self]
        waiting = [other for other in others if other._waits_for_client()]
        if not waiting:
            self._refuse(Problem(503, "the web has as many connections as it may; try again later", headers=RETRY))
            return
        # Those without a request go before those in the middle of a body.
        oldest = min(waiting, key=lambda other: (not other._waits_for_request(), other._waits_since_s))
        oldest.transport.abort()
        self.connections.discard(oldest)

    def _cancel_timers(self) -> None:
        for timer in (self._head_timer, self._linger_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._linger_timer = None


RETRY = {"Retry-After": "5"}


def max_connections() -> int:
    """Return the limit on connections: half of the process's file descriptors, at most 512."""
    return min(MAX_CONNECTIONS, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def _tells_a_body(name: bytes, value: bytes) -> bool:
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t") != b"")


def _encoded(problem: Problem, default_headers: list[tuple[bytes, bytes]]) -> bytes:
    body = problem.encoded()
    headers: dict[str, Any] = {
        **{name.decode(): value.decode() for name, value in default_headers},
        **problem.headers,
        "content-type": CONTENT_TYPE,
        "content-length": len(body),
        "connection": "close",
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return STATUS_LINE[problem.status] + lines.encode() + b"\r\n" + body
