"""Web server on loopback that answers each request after 50 ms, regardless of concurrency."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

ANSWER_MS = 50
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@contextlib.contextmanager
def slow_server() -> Iterator[str]:
    """Serve during the block; yield the URL."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(_answer, "127.0.0.1", 0, backlog=512))
    thread = threading.Thread(target=loop.run_forever, name="slow-server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(ANSWER_MS / 1_000)
        writer.write(ANSWER)
        await writer.drain()
    writer.close()
