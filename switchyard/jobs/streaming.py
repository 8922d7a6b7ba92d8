"""Long-lived streaming responses and the resources they hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Protocol

from asgiref.sync import sync_to_async
from django.db import connections


class Closable(Protocol):
    """A resource of a stream."""

    def close(self) -> object:
        """Release the resource. Called from any thread."""


class Stream:
    """Chunks for a ``StreamingHttpResponse``, closed together with it.

    Django closes its iterator over the generator, not the generator: when a client disconnects in the middle, the
    generator's ``finally`` would wait for the garbage collector.

    Args:
        chunks: A generator that was not started, of the running event loop.
        source: Closed as well: the ``finally`` of a generator that never started does not run.
    """

    def __init__(self, chunks: AsyncGenerator[bytes], *, source: Closable | None = None) -> None:
        self._chunks = chunks
        self._source = source
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Schedule the generator's clean-up. The response calls this method from any thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_close(self._chunks), self._loop)
        if self._source is not None:
            self._source.close()


async def free_database() -> None:
    """Close this request's database connections, which Django would keep until the stream ends."""
    await sync_to_async(connections.close_all)()


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
