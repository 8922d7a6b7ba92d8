"""TCP proxy on loopback that adds latency, in its own process; prints its port.

    python -m benchmarks.delay_proxy SERVER_PORT ONE_WAY_MS

One thread and ``select``, whose timeouts are microseconds: asyncio's are whole milliseconds.
"""

import select
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass, field

CHUNK_BYTES = 262_144
IDLE_S = 60.0


@dataclass(eq=False)
class Way:
    """Bytes read from one socket, with the time from which they may be written to the other."""

    reader: socket.socket
    writer: socket.socket
    chunks: deque[tuple[float, bytes]] = field(default_factory=deque)


def serve(listener: socket.socket, server_port: int, one_way_s: float) -> None:
    """Forward until the process ends. A connection closed on one side is closed on both."""
    ways: dict[socket.socket, Way] = {}
    while True:
        due_s = min((way.chunks[0][0] for way in ways.values() if way.chunks), default=None)
        timeout_s = IDLE_S if due_s is None else max(due_s - time.monotonic(), 0)
        readable, _, _ = select.select([listener, *ways], [], [], timeout_s)
        for ready in readable:
            if ready is listener:
                _accept(listener, server_port, ways)
            elif ready in ways:
                _read(ways[ready], ways, one_way_s)
        _forward(ways)


def _accept(listener: socket.socket, server_port: int, ways: dict[socket.socket, Way]) -> None:
    client, _ = listener.accept()
    server = socket.create_connection(("127.0.0.1", server_port))
    for end in (client, server):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    ways[client], ways[server] = Way(client, server), Way(server, client)


def _read(way: Way, ways: dict[socket.socket, Way], one_way_s: float) -> None:
    try:
        chunk = way.reader.recv(CHUNK_BYTES)
    except OSError:
        chunk = b""
    if chunk:
        way.chunks.append((time.monotonic() + one_way_s, chunk))
    else:
        _close(way, ways)


def _forward(ways: dict[socket.socket, Way]) -> None:
    now = time.monotonic()
    for way in list(ways.values()):
        while way.chunks and way.chunks[0][0] <= now:
            try:
                way.writer.sendall(way.chunks.popleft()[1])
            except OSError:
                _close(way, ways)
                break


def _close(way: Way, ways: dict[socket.socket, Way]) -> None:
    for end in (way.reader, way.writer):
        ways.pop(end, None)
        end.close()


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0))
    print(listening.getsockname()[1], flush=True)
    serve(listening, int(sys.argv[1]), float(sys.argv[2]) / 1000)
