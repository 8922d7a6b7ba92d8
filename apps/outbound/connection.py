"""One connection to one checked address, with limits on time and on bytes read.

A socket's timeout bounds a single read, so a peer that sends one byte at a time could block its caller for ever. Two
limits bound the whole request: the ``Watchdog`` its time, the ``MeteredSocket`` the bytes of its response.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from apps.outbound.addresses import Place
from apps.outbound.errors import DeadlineExceeded, TooLarge, Unreachable


class Deadline:
    """Deadline of a whole request, so many seconds from now; ``host`` names it in errors once it is known."""

    def __init__(self, seconds: float) -> None:
        self.host = "URL"
        self.seconds = seconds
        self.started = time.monotonic()

    def left(self, doing: str) -> float:
        """Return the remaining seconds.

        Raises:
            DeadlineExceeded: the deadline has passed.
        """
        seconds = self.started + self.seconds - time.monotonic()
        if seconds <= 0:
            raise DeadlineExceeded(self.host, self.seconds, doing)
        return seconds


class Watchdog:
    """Timer that shuts a connection down at the deadline, in any phase: handshake, sending, headers or body.

    The watchdog holds a duplicate of the socket: TLS takes over the original. A timer runs in a thread, or in a
    greenlet. Use as a context manager.
    """

    def __init__(self, sock: socket.socket, after_s: float) -> None:
        self._twin: socket.socket | None = sock.dup()
        self._lock = threading.Lock()
        self._timer = threading.Timer(after_s, self._bark)
        self._timer.name = "outbound-watchdog"
        self._timer.daemon = True

    def __enter__(self) -> Watchdog:
        self._timer.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._twin is not None:
                self._twin.close()
                self._twin = None

    def _bark(self) -> None:
        # The lock prevents shutting down a descriptor that was closed and reused by another connection.
        with self._lock, contextlib.suppress(OSError):  # the peer has already closed the connection
            if self._twin is not None:
                self._twin.shutdown(socket.SHUT_RDWR)


class MeteredSocket:
    """A connected socket that counts what is read: an endless response (headers or chunk frames) ends at its limit.

    Implements the part of the interface that ``http.client`` uses.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._sock = sock
        self.deadline = deadline
        self._part = ""
        self._limit_bytes = self._left_bytes = 0

    def allow(self, part: str, limit_bytes: int) -> None:
        """Begin a part of the response and set its limit in bytes."""
        self._part = part
        self._limit_bytes = self._left_bytes = limit_bytes

    def count(self, received_bytes: int) -> None:
        """Count received bytes.

        Raises:
            TooLarge: the part exceeds its limit in bytes.
            DeadlineExceeded: the deadline has passed.
        """
        self.deadline.left("the answer was read")
        self._left_bytes -= received_bytes
        if self._left_bytes < 0:
            raise TooLarge(self.deadline.host, self._part, self._limit_bytes)

    def makefile(self, mode: str, *args: Any, **kwargs: Any) -> io.BufferedReader:
        """Return a reader of the connection; it may outlive this object."""
        return io.BufferedReader(_MeteredReader(self._sock.makefile("rb", buffering=0), self.count))

    def sendall(self, data: Any) -> None:
        self._sock.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        """Limit a single read or write; the watchdog limits the whole request."""
        self._sock.settimeout(seconds)

    def shutdown(self, how: int) -> None:
        self._sock.shutdown(how)

    def close(self) -> None:
        self._sock.close()


class _MeteredReader(io.RawIOBase):
    def __init__(self, raw: Any, count: Callable[[int], None]) -> None:
        self._raw, self._count = raw, count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        received_bytes: int = self._raw.readinto(buffer) or 0
        self._count(received_bytes)
        return received_bytes

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


class _FinalAnswer(http.client.HTTPResponse):
    """The answer behind interim ones such as ``103 Early Hints`` (RFC 9110, 15.2). Python skips ``100`` alone."""

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if status in (http.client.CONTINUE, http.client.SWITCHING_PROTOCOLS) or status >= http.client.OK:
                return version, status, reason
            http.client.parse_headers(self.fp)


class _Pinned(HTTPConnection):
    response_class = _FinalAnswer
    pinned: socket.socket

    def _new_conn(self) -> socket.socket:
        return self.pinned


class _PinnedTLS(_Pinned, HTTPSConnection):
    pass


def connect_tcp(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to an address (never a name: nothing is resolved here).

    Raises:
        Unreachable: the other end is not the address that was checked.
        OSError: no connection.
    """
    wanted = ip_address(address)
    sock = socket.socket(socket.AF_INET if wanted.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect((address, port))
        if ip_address(sock.getpeername()[0]) != wanted:
            raise Unreachable(address, "another address answered")
    except BaseException:
        sock.close()
        raise
    return sock


def open_connection(place: Place, sock: socket.socket, deadline: Deadline, tls: ssl.SSLContext) -> HTTPConnection:
    """Return an HTTP connection over a connected socket; for ``https`` after the handshake, the certificate checked.

    Raises:
        DeadlineExceeded: the deadline has passed.
        OSError: the handshake failed, or the certificate is not one for ``place.host``.
    """
    try:
        timeout_s = deadline.left("it was connected")
        if place.scheme == "http":
            connection = _Pinned(place.host, place.port, timeout=timeout_s)
        else:
            # OpenSSL compares the certificate with server_hostname: the context has check_hostname.
            connection = _PinnedTLS(
                place.host, place.port, timeout=timeout_s, ssl_context=tls, server_hostname=place.host
            )
        connection.pinned = sock
        connection.connect()
    except BaseException:
        sock.close()
        raise
    return connection
