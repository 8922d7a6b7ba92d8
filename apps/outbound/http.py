"""Outgoing HTTP to untrusted URLs: pinned addresses, limits on time and size, no redirects.

No retries, proxies, cookies or persistent connections; responses are never decompressed.
"""

import contextlib
import functools
import http.client
import socket
import ssl
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from urllib3.connection import HTTPConnection
from urllib3.exceptions import HTTPError

from apps.outbound.addresses import RESOLVE_DEADLINE_S, Place, check_url, read_url
from apps.outbound.connection import Deadline, MeteredSocket, Watchdog, connect_tcp, open_connection
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
        truncated: The response was longer.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool = False


def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    deadline_s: float,
    max_bytes: int,
    truncate: bool = False,
) -> Response:
    """Send one request and return its response. Redirects are returned, not followed.

    Args:
        deadline_s: Limit of the whole request: look-up, connection, TLS, sending, headers, body.
        max_bytes: Limit of the response's body.
        truncate: Keep the first ``max_bytes`` of a longer body, instead of refusing it.

    Raises:
        ForbiddenAddress: the URL must not be requested. Nothing was sent.
        DeadlineExceeded: the deadline is over. The request may have been received.
        TooLarge: the answer's head is above 64 KiB, or its body above ``max_bytes``.
        Unreachable: no connection, no trusted certificate, or a response that is not HTTP.
    """
    deadline = Deadline(deadline_s)
    calls_host(read_url(url).host)
    place, addresses = check_url(url, deadline_s=min(deadline_s, RESOLVE_DEADLINE_S))
    deadline.host = place.host
    sent = {
        "user-agent": USER_AGENT,
        **{name.lower(): value for name, value in (headers or {}).items()},
        "host": place.host_header,
        "accept-encoding": "identity",
        "connection": "close",
    }
    try:
        with _span(method, place.host) as span:
            sock = _connect(place, addresses, deadline)
            with (
                Watchdog(sock, deadline.left("it was connected")),
                contextlib.closing(open_connection(place, sock, deadline, _tls())) as connection,
            ):
                connection.sock = metered = MeteredSocket(connection.sock, deadline)
                metered.allow("the answer's head", MAX_HEADER_BYTES)
                # A server may respond before the whole request is sent.
                with contextlib.suppress(BrokenPipeError):
                    connection.request(
                        method, place.target, body or None, sent, preload_content=False, decode_content=False
                    )
                response = _read(connection, metered, max_bytes, truncate=truncate)
            if span is not None:
                span.set_attribute("http.response.status_code", response.status)
            return response
    except (OSError, HTTPError, http.client.HTTPException) as error:
        # An expired deadline looks like a broken connection: the watchdog shut it down.
        deadline.left("waiting for the other side")
        raise Unreachable(place.host, _cause(error)) from error


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


def _connect(place: Place, addresses: Sequence[str], deadline: Deadline) -> socket.socket:
    """Connect to the first of the checked addresses that accepts, with the time divided among them."""
    addresses = addresses[:MAX_ADDRESSES_TRIED]
    for left_count, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        timeout_s = deadline.left("it was connected") / left_count
        try:
            return connect_tcp(address, place.port, timeout_s)
        except OSError:
            if left_count == 1:
                raise
    raise Unreachable(place.host, "its name has no address")


def _read(connection: HTTPConnection, metered: MeteredSocket, max_bytes: int, *, truncate: bool) -> Response:
    """Read the answer, its body undecoded. Chunk framing may add as many bytes again, and a constant."""
    body = bytearray()
    with contextlib.closing(connection.getresponse()) as answer:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        # urllib3 prepares decoders by this header even with decoding off.
        answer.headers.discard("content-encoding")
        metered.allow("the answer's body", 2 * max_bytes + MAX_HEADER_BYTES)
        try:
            # Not stream(): it reads chunk headers as lines without a limit.
            while piece := answer.read(min(READ_BYTES, max_bytes + 1 - len(body)), decode_content=False):
                body += piece
                if len(body) > max_bytes:
                    break
        except ValueError as error:
            # http.client accepts a negative size of a chunk and hands it to read().
            raise InvalidAnswer from error
    if len(body) > max_bytes and not truncate:
        raise TooLarge(metered.deadline.host, "the answer's body", max_bytes)
    # When the end of the stream ends the body, a connection shut down in mid-body looks complete.
    metered.deadline.left("the answer was read")
    return Response(answer.status, headers, bytes(body[:max_bytes]), len(body) > max_bytes)


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
