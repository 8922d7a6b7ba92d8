"""Responses that last, and what they hold while they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.base import File
from django.db import connections


class Stream:
    """Chunks for a ``StreamingHttpResponse``, closed with it.

    Django closes the iterator it made of a generator, not the generator. A reader that leaves while bytes are on
    their way to it would leave the generator's ``finally`` to the garbage collector.

    Args:
        chunks: A generator that was not started; it belongs to the running event loop.
        source: Closed as well: a generator that never started has no ``finally`` to do it.
    """

    def __init__(self, chunks: AsyncGenerator[bytes], *, source: File[Any] | None = None) -> None:
        self._chunks = chunks
        self._source = source
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> AsyncGenerator[bytes]:
        return self._chunks

    def close(self) -> None:
        """Let the generator clean up, soon. Called by the response, from any thread."""
        if self._loop.is_running():
            asyncio.run_coroutine_threadsafe(_close(self._chunks), self._loop)
        if self._source is not None:
            self._source.close()


async def free_database() -> None:
    """Close this request's database connections, which Django would keep for as long as the stream lasts."""
    await sync_to_async(connections.close_all)()


async def _close(chunks: AsyncGenerator[bytes]) -> None:
    await chunks.aclose()
