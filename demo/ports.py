"""Listening sockets on loopback. They are made here and inherited by the parts, so that no port is lost to a race."""

from __future__ import annotations

import errno
import socket

from demo.errors import PortTaken

HOST = "127.0.0.1"
BACKLOG = 512
NEXT_PORTS = 100


def listen(port: int) -> socket.socket:
    """Return a socket that listens on exactly this port; 0 is any free one.

    Raises:
        PortTaken: another program has it, or it is not for us to have.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise PortTaken(port, str(error.strerror).lower()) from error
        raise
    return listener


def listen_near(port: int) -> socket.socket:
    """Return a socket that listens on this port, the next free one above it, or any.

    Args:
        port: 0 asks for any free port at once.
    """
    for candidate in range(port, min(port + NEXT_PORTS, 65536) if port else 0):
        try:
            return listen(candidate)
        except PortTaken:
            continue
    return listen(0)


def listen_again(port: int) -> socket.socket:
    """Return a socket that listens on the port of last time, or on any where that is taken."""
    try:
        return listen(port)
    except PortTaken:
        return listen(0)


def port_of(listener: socket.socket) -> int:
    """Return the port a socket listens on."""
    return int(listener.getsockname()[1])


def free_again(port: int) -> int:
    """Return ``port`` if it is free now, else 0, which lets a server that takes no socket choose its own."""
    if port == 0:
        return 0
    try:
        listen(port).close()
    except PortTaken:
        return 0
    return port
