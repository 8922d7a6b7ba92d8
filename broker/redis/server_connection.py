"""A TCP connection that never leads to itself.

Linux takes the port of a new connection from 32768 to 60999. Where the server's port is one of these and nothing
listens there, a client on the same machine that tries again and again gets it as its own port in the end: TCP then
connects the socket to itself ("simultaneous open", RFC 9293, section 3.5). Each command would come back as its own
answer, and the server could not start, because the port is taken.
"""

from __future__ import annotations

import errno
import os
from typing import Any

from redis.connection import Connection


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
    """Refuse a connection whose two ends have one address.

    Raises:
        ConnectionRefusedError: they have, as if nothing listened there: nothing does.
    """
    if end == other_end:
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
