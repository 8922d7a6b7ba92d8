"""A TCP port that is kept free for a server that starts minutes later."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from switchyard.embedded.server import HOST


@contextmanager
def held_port() -> Iterator[int]:
    """Provide a port of loopback that the system gives to nobody who asks for any port.

    A server that sets SO_REUSEADDR, as Python's HTTP servers do, can take it: the socket here does so too and does not
    listen (socket(7), SO_REUSEADDR).
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((HOST, 0))
        yield int(holder.getsockname()[1])
