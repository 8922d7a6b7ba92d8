"""A TCP connection that never leads to itself.

Linux takes the port of a new connection from 32768 to 60999. Where the server's port is one of these and nothing
listens there, a client on the same machine that tries again and again gets it as its own port in the end: TCP then
connects the socket to itself ("simultaneous open", RFC 9293, section 3.5). Each command would come back as its own
answer, and the server could not start, because the port is taken.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import ssl
from typing import Any

from redis.connection import AbstractConnection, Connection, SSLConnection
from redis.exceptions import AuthenticationError, ResponseError

# A connection that tells its library asks for rights that it does not need, and costs two round trips more.
NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}  # redis-py before 7.2
)


class ServerConnection(Connection):
    """A connection that is refused where its two ends are one."""

    def _connect(self) -> Any:
        sock: Any = super()._connect()
        try:
            refuse_itself(sock.getsockname(), sock.getpeername())
        except OSError:  # also one that the server has reset meanwhile, which has no other end
            sock.close()
            raise
        return sock


def refuse_itself(end: Any, other_end: Any) -> None:
    """Raise ``ConnectionRefusedError`` where a connection's two ends are one: nothing listens there."""
    if end == other_end:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


TLS_RULES = ("ssl_include_verify_flags", "ssl_exclude_verify_flags", "ssl_ciphers", "ssl_min_version")


class TlsConnection(SSLConnection, ServerConnection):
    """A connection over TLS that trusts the authorities of ``ssl_ca_certs`` alone, where the address names some.

    redis-py loads the system's authorities as well, for each connection: 40 ms of processor time, once a second.
    The files are read anew each time, because certificates are renewed.

    A server with TLS 1.3 sends session tickets after the handshake. Until an answer is read they make the socket
    readable, and a pool of redis-py drops such a connection ("Connection not ready"). A login reads one; without a
    login a ``PING`` does.
    """

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, or read one answer where there is no login."""
        super().on_connect_check_health(check_health=check_health)
        if not (self.username or self.password or self.credential_provider):
            self.send_command("PING", check_health=False)
            with contextlib.suppress(ResponseError, AuthenticationError):  # the next command is refused likewise
                self.read_response()

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        named = self.ca_certs or self.ca_path or self.ca_data
        rules = any(getattr(self, name, None) for name in TLS_RULES)  # redis-py before 7 has no flags
        if not named or rules or self.ssl_validate_ocsp or self.ssl_validate_ocsp_stapled:
            return super()._wrap_socket_with_ssl(sock)
        context = ssl.create_default_context(cafile=self.ca_certs, capath=self.ca_path, cadata=self.ca_data)
        context.check_hostname = self.check_hostname
        context.verify_mode = self.cert_reqs
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile, self.keyfile, self.certificate_password)
        return context.wrap_socket(sock, server_hostname=self.host)
