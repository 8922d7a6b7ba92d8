"""A TCP proxy that does to a connection what networks do, switched while it runs.

It works in a thread of its own. Every verb takes effect at once, for connections that are open and for those to come,
and returns when it has taken effect.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeVar

T = TypeVar("T")
Direction = Literal["to_server", "to_client"]
BOTH: tuple[Direction, Direction] = ("to_server", "to_client")
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
CHUNK_BYTES = 65_536
QUEUED_CHUNKS = 256  # beyond, a sender that is held feels it, as it does on a network


@dataclass(eq=False)
class Link:
    """One client's connection and its other half to the server."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    silent: bool = False  # its peer has vanished: what is sent goes nowhere
    swallowed: bool = False  # bytes are missing from its stream, so it must never be used again
    fault: Fault | None = None  # what the next reply meets
    tasks: list[asyncio.Task[None]] = field(default_factory=list)


@dataclass
class Fault:
    """Faults to inject into the next replies to some commands."""

    kind: Literal["drop", "cut"]
    count: int
    of: bytes


class FaultProxy:
    """Listen on a free port and forward to ``127.0.0.1:server_port``.

    ``with FaultProxy(port) as proxy: connect(proxy.url)``. While the server is away, connections are accepted and
    closed at once.

    Args:
        server_port: Where the server listens.
        seed: Of the jitter.
        host: Address of this machine to listen on.
    """

    def __init__(self, server_port: int, *, seed: int = 0, host: str = "127.0.0.1") -> None:
        self.server_port, self.host = server_port, host
        self.port = 0
        self.accepted_count = 0  # connections ever
        self.faults_met_count = 0  # replies dropped or cut
        self.replies_count = 0  # pieces of replies that clients were given whole
        self.swallowed_bytes = 0
        self._random = random.Random(seed)
        self._links: set[Link] = set()
        self._transports: weakref.WeakSet[asyncio.WriteTransport] = weakref.WeakSet()  # that may be open still
        self._serving: set[asyncio.Task[None]] = set()  # held here: the loop keeps weak references only
        self._faults: list[Fault] = []
        self._blackhole = self._refuses = False
        self._delay_s = self._jitter_s = 0.0
        self._bytes_per_s: float | None = None
        self._open: dict[Direction, asyncio.Event] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    @property
    def open_count(self) -> int:
        return len(self._links)

    def pass_(self) -> None:
        """Forward everything again. Connections that lost bytes are reset: what was lost never comes."""

        def heal() -> None:
            self._blackhole = False
            self._delay_s = self._jitter_s = 0.0
            self._bytes_per_s = None
            self._faults.clear()
            for link in list(self._links):
                link.silent = False
                link.fault = None
                if link.swallowed:
                    self._reset(link)
            for gate in self._open.values():
                gate.set()

        self._do(heal)
        if self._refuses:
            asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(60)

    def refuse(self) -> None:
        """Reset every open connection and refuse new ones until :meth:`pass_`, as a host without the server does."""
        asyncio.run_coroutine_threadsafe(self._refuse(), self._loop).result(60)

    def blackhole(self) -> None:
        """Read everything and forward nothing, both ways, until :meth:`pass_`. Connecting still works."""

        def swallow() -> None:
            self._blackhole = True
            for link in self._links:
                link.silent = True

        self._do(swallow)

    def half_open(self) -> None:
        """Let the peer of every open connection vanish without a word; new connections work."""

        def vanish() -> None:
            for link in self._links:
                link.silent = link.swallowed = True

        self._do(vanish)

    def stall(self, *directions: Direction) -> None:
        """Hold what goes in these directions (by default both) until :meth:`pass_`. Nothing is lost."""

        def hold() -> None:
            for direction in directions or BOTH:
                self._open[direction].clear()

        self._do(hold)

    def delay(self, ms: float, jitter_ms: float = 0.0) -> None:
        """Deliver everything so much later, each way, plus a random time up to the jitter. Order stays."""
        self._delay_s, self._jitter_s = ms / 1000, jitter_ms / 1000

    def rate(self, bytes_per_s: float) -> None:
        """Forward no more than so many bytes a second, on each connection and each way."""
        self._bytes_per_s = bytes_per_s

    def reset(self) -> int:
        """Reset (RST) every open connection and return how many there were."""

        def storm() -> int:
            links = list(self._links)
            for link in links:
                self._reset(link)
            return len(links)

        return self._do(storm)

    def drop_reply(self, n: int = 1, *, of: bytes = b"") -> None:
        """Have the next ``n`` commands done and their replies lost, each with its connection.

        Args:
            of: Only of commands that hold these bytes. Health checks of a client are commands too.
        """
        self._do(lambda: self._faults.append(Fault("drop", n, of)))

    def cut_mid_frame(self, n: int = 1, *, of: bytes = b"") -> None:
        """Deliver half of each of the next ``n`` replies (see :meth:`drop_reply`), then cut the connection."""
        self._do(lambda: self._faults.append(Fault("cut", n, of)))

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _do(self, act: Callable[[], T]) -> T:
        async def on_loop() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(60)

    async def _listen(self) -> None:
        for direction in BOTH:
            self._open.setdefault(direction, asyncio.Event()).set()
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self._refuses = False
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        await self._stop_listening()
        for link in list(self._links):
            self._reset(link)

    async def _stop_listening(self) -> None:
        self._refuses = True
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        for _ in range(2):  # a connection that was accepted belongs to the server when its task has begun
            await asyncio.sleep(0)
        self._server.close()

    async def _close(self) -> None:
        await self._stop_listening()
        for link in list(self._links):
            self._reset(link)
        this = asyncio.current_task()
        while others := [task for task in asyncio.all_tasks() if task is not this]:  # one may have begun another
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        for transport in self._transports:  # one that was closed waits until its peer has read everything
            transport.abort()
        await asyncio.sleep(0)

    def _accept(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        """Note the connection before its task begins: a task that is cancelled before that closes nothing."""
        self.accepted_count += 1
        self._transports.add(to_client.transport)
        task = self._loop.create_task(self._serve(from_client, to_client))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            to_client.transport.abort()
            return
        self._transports.add(to_server.transport)
        if self._refuses:
            to_client.transport.abort()
            to_server.transport.abort()
            return
        link = Link(to_client, to_server, silent=self._blackhole)
        self._links.add(link)
        link.tasks = [
            asyncio.create_task(self._carry(link, "to_server", from_client, to_server)),
            asyncio.create_task(self._carry(link, "to_client", from_server, to_client)),
        ]
        await asyncio.wait(link.tasks)
        self._links.discard(link)
        if link.fault:  # its connection ended before the reply came: another one meets the fault
            self._faults.append(link.fault)
        for writer in (to_client, to_server):
            writer.close()

    async def _carry(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward one direction: one task reads and stamps, this one waits and writes."""
        chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(QUEUED_CHUNKS)
        reading = asyncio.create_task(self._read(reader, chunks))
        try:
            while True:
                due, chunk = await chunks.get()
                if (early_s := due - self._loop.time()) > 0:
                    await asyncio.sleep(early_s)
                await self._open[direction].wait()
                if link.silent:
                    self.swallowed_bytes += len(chunk)
                    link.swallowed = True
                    continue
                if not chunk:
                    break
                await self._forward(link, direction, writer, chunk)
        except OSError:
            pass  # the other half has gone; whoever reads from this one learns it below
        finally:
            reading.cancel()
            if not link.silent:
                self._end(link)

    async def _read(self, reader: asyncio.StreamReader, chunks: asyncio.Queue[tuple[float, bytes]]) -> None:
        due = 0.0
        chunk = b"-"
        while chunk:
            try:
                chunk = await reader.read(CHUNK_BYTES)
            except OSError:
                chunk = b""
            due = max(due, self._loop.time() + self._delay_s + self._random.random() * self._jitter_s)
            await chunks.put((due, chunk))

    async def _forward(self, link: Link, direction: Direction, writer: asyncio.StreamWriter, chunk: bytes) -> None:
        if direction == "to_server":
            link.fault = link.fault or self._take_fault(chunk)
        elif link.fault:
            self.faults_met_count += 1
            fault, link.fault = link.fault, None
            if fault.kind == "cut":
                writer.write(chunk[: len(chunk) // 2])
                await writer.drain()
                raise ConnectionAbortedError
            self._reset(link)
            raise ConnectionResetError
        if self._bytes_per_s is None:
            writer.write(chunk)
            await writer.drain()
            self.replies_count += direction == "to_client"
            return
        slice_bytes = max(int(self._bytes_per_s / 50), 1)
        for start in range(0, len(chunk), slice_bytes):
            part = chunk[start : start + slice_bytes]
            writer.write(part)
            await writer.drain()
            if self._bytes_per_s is not None:
                await asyncio.sleep(len(part) / self._bytes_per_s)

    def _take_fault(self, command: bytes) -> Fault | None:
        for fault in self._faults:
            if fault.of in command:
                fault.count -= 1
                if fault.count == 0:
                    self._faults.remove(fault)
                return Fault(fault.kind, 1, fault.of)
        return None

    def _end(self, link: Link) -> None:
        for writer in (link.client, link.server):
            with contextlib.suppress(OSError, RuntimeError):
                writer.close()
        for task in link.tasks:
            if task is not asyncio.current_task():
                task.cancel()

    def _reset(self, link: Link) -> None:
        for writer in (link.client, link.server):
            with contextlib.suppress(OSError):
                endpoint: socket.socket = writer.get_extra_info("socket")
                endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            writer.transport.abort()
        for task in link.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._links.discard(link)
