"""A real server on loopback that does to its client what the test says."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass
class Listener:
    """Args: ``accepted``: connections so far; ``stopped``: set when the test is over, to wait on."""

    port: int
    accepted: int = 0
    requests: list[bytes] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def pause(self, seconds: float) -> bool:
        """Wait; true when the test is over."""
        return self.stopped.wait(seconds)


@contextlib.contextmanager
def listening(act: Callable[[Listener, socket.socket], None]) -> Iterator[Listener]:
    """Serve each connection with ``act`` in a thread of its own until the block ends."""
    server = socket.create_server(("127.0.0.1", 0), backlog=128)
    listener = Listener(server.getsockname()[1])
    handlers: list[threading.Thread] = []

    def serve(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            act(listener, client)

    def accept() -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            if listener.stopped.is_set():
                client.close()
                return
            listener.accepted += 1
            handlers.append(threading.Thread(target=serve, args=(client,), daemon=True))
            handlers[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener
    finally:
        listener.stopped.set()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", listener.port), timeout=1):
            acceptor.join(30)
        server.close()
        for handler in handlers:
            handler.join(30)


def read_request(listener: Listener, client: socket.socket) -> bytes:
    """Read one request, head and body, and note it."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = client.recv(65536)
        if not piece:
            return received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += client.recv(65536)
    listener.requests.append(head + b"\r\n\r\n" + body)
    return received


def answering(answer: bytes) -> Callable[[Listener, socket.socket], None]:
    """Read the request, send an answer, close."""

    def act(listener: Listener, client: socket.socket) -> None:
        read_request(listener, client)
        client.sendall(answer)

    return act


def flooding(start: bytes, again: bytes) -> Callable[[Listener, socket.socket], None]:
    """Read the request, then send without an end, as fast as it goes."""

    def act(listener: Listener, client: socket.socket) -> None:
        read_request(listener, client)
        client.sendall(start)
        piece = again * max(1, 65536 // len(again))
        while not listener.stopped.is_set():
            client.sendall(piece)

    return act


def dripping(start: bytes, drop: bytes, every_s: float = 0.1) -> Callable[[Listener, socket.socket], None]:
    """Read the request, then send a drop now and then, without an end."""

    def act(listener: Listener, client: socket.socket) -> None:
        read_request(listener, client)
        client.sendall(start)
        while not listener.pause(every_s):
            client.sendall(drop)

    return act
