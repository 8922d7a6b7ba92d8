"""Outgoing HTTP to untrusted URLs: pinned addresses, limits on time and size, no redirects.

No retries, proxies, cookies or persistent connections; responses are never decompressed.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import socket
import ssl
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from urllib3.exceptions import HTTPError
from urllib3.response import HTTPResponse

from apps.outbound.addresses import RESOLVE_DEADLINE_S, Checked, Resolve, check_url, look_up, read_url
from apps.outbound.connection import Connect, Deadline, MeteredSocket, Watchdog, connect_tcp, open_connection
from apps.outbound.errors import TooLarge, Unreachable
from switchyard.middleware.circuits import calls_host

USER_AGENT = "Switchyard/1"
MAX_HEADER_BYTES = 64 * 1024
MAX_ADDRESSES_TRIED = 4
READ_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A response of any status.

    Args:
        headers: Names in lower case; values of a repeated header joined with ``", "``.
        body: Undecoded body, at most ``max_bytes``.
        elapsed_ms: From the DNS look-up to the last byte.
        truncated: The response was longer.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    elapsed_ms: int
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    headers: Mapping[str, str]
    body: bytes
    max_bytes: int
    truncate: bool


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    deadline_s: float,
    max_bytes: int,
    truncate: bool = False,
    resolve: Resolve = look_up,
    connect: Connect = connect_tcp,
    tls: ssl.SSLContext | None = None,
) -> Response:
    """Send one request and return its response. Redirects are returned, not followed.

    Args:
        deadline_s: Limit of the whole request: look-up, connection, TLS, sending, headers, body.
        max_bytes: Limit of the response's body.
        truncate: Keep the first ``max_bytes`` of a longer body, instead of refusing it.
        resolve, connect, tls: Parts that tests replace.

    Raises:
        ForbiddenAddress: the URL must not be requested. Nothing was sent.
        DeadlineExceeded: the deadline is over. The request may have been received.
        TooLarge: the answer's head is above 64 KiB, or its body above ``max_bytes``.
        Unreachable: no connection, no trusted certificate, or a response that is not HTTP.
    """
    deadline = Deadline(deadline_s)
    calls_host(read_url(url).host)
    checked = check_url(url, deadline_s=min(deadline_s, RESOLVE_DEADLINE_S), resolve=resolve)
    deadline.host = checked.place.host
    sent = {
        "user-agent": USER_AGENT,
        **{name.lower(): value for name, value in (headers or {}).items()},
        "host": checked.place.host_header,
        "accept-encoding": "identity",
        "connection": "close",
    }
    request = _Request(method, sent, body, max_bytes, truncate)
    try:
        with _span(method, checked.place.host) as span:
            sock = _connect(checked, deadline, connect)
            with Watchdog(sock, deadline.left("it was connected")):
                response = _exchange(checked, sock, deadline, request, tls or _tls())
            if span is not None:
                span.set_attribute("http.response.status_code", response.status)
            return response
    except (OSError, HTTPError, http.client.HTTPException) as error:
        # An expired deadline looks like a broken connection: the watchdog shut it down.
        deadline.left("waiting for the other side")
        raise Unreachable(checked.place.host, _cause(error)) from error


def _span(method: str, host: str) -> AbstractContextManager[Any]:
    """Return a span for a block where the yard is traced: no instrumentation knows a request on a checked connection.

    The other side is a stranger, and gets no header of the trace.
    """
    if (trace := sys.modules.get("opentelemetry.trace")) is None:
        return contextlib.nullcontext()
    facts = {"http.request.method": method, "server.address": host}
    span: AbstractContextManager[Any] = trace.get_tracer(__name__).start_as_current_span(
        method, kind=trace.SpanKind.CLIENT, attributes=facts
    )
    return span


def _connect(checked: Checked, deadline: Deadline, connect: Connect) -> socket.socket:
    """Connect to the first of the checked addresses that accepts, with the time divided among them."""
    addresses = checked.addresses[:MAX_ADDRESSES_TRIED]
    for left_count, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        timeout_s = deadline.left("it was connected") / left_count
        try:
            return connect(address, checked.place.port, timeout_s)
        except OSError:
            if left_count == 1:
                raise
    raise Unreachable(checked.place.host, "its name has no address")


def _exchange(
    checked: Checked, sock: socket.socket, deadline: Deadline, request: _Request, tls: ssl.SSLContext
) -> Response:
    try:
        connection = open_connection(checked.place, sock, deadline.left("it was connected"), tls)
    except BaseException:
        sock.close()
        raise
    with contextlib.closing(connection):
        connection.sock = metered = MeteredSocket(connection.sock, deadline)
        metered.allow("the answer's head", MAX_HEADER_BYTES)
        # A server may respond before the whole request is sent.
        with contextlib.suppress(BrokenPipeError):
            connection.request(
                request.method, checked.place.target, request.body or None, request.headers,
                preload_content=False, decode_content=False,
            )  # fmt: skip
        with contextlib.closing(connection.getresponse()) as answer:
            received = {name.lower(): value for name, value in answer.headers.items()}
            try:
                body, truncated = _read(answer, metered, request)
            except ValueError as error:
                # http.client accepts a negative size of a chunk and hands it to read().
                raise InvalidAnswer from error
    # When the end of the stream ends the body, a connection shut down in mid-body looks complete.
    deadline.left("the answer was read")
    return Response(answer.status, received, body, deadline.elapsed_ms, truncated)


def _read(answer: HTTPResponse, metered: MeteredSocket, request: _Request) -> tuple[bytes, bool]:
    """Read the body undecoded. Chunk framing may add as many bytes again, and a constant."""
    # urllib3 prepares decoders by this header even with decoding off.
    answer.headers.discard("content-encoding")
    metered.allow("the answer's body", 2 * request.max_bytes + MAX_HEADER_BYTES)
    body = bytearray()
    while len(body) <= request.max_bytes:
        # Not stream(): it reads chunk headers as lines without a limit.
        piece = answer.read(min(READ_BYTES, request.max_bytes + 1 - len(body)), decode_content=False)
        if not piece:
            return bytes(body), False
        body += piece
    if not request.truncate:
        raise TooLarge(metered.deadline.host, "the answer's body", request.max_bytes)
    return bytes(body[: request.max_bytes]), True


class InvalidAnswer(http.client.HTTPException):
    """An answer with a number that no reader can use."""


@functools.cache
def _tls() -> ssl.SSLContext:
    """Load the system's certificate authorities, once for each process."""
    return ssl.create_default_context()


def _cause(error: Exception) -> str:
    """Return the description of an error, without text chosen by the server."""
    cause: BaseException = error
    if isinstance(error, HTTPError) and isinstance(error.__cause__, OSError):
        cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({cause.verify_message})"
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or type(cause).__name__})"
    if isinstance(cause, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(cause, OSError):
        return cause.strerror or type(cause).__name__
    return f"its answer is not HTTP ({type(cause).__name__})"
