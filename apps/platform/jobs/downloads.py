"""Stored results as streamed downloads, for synchronous and asynchronous views."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.base import File
from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

from apps.platform.jobs.results import open_result

CHUNK_BYTES = 64 * 1024


def download(name: str, *, filename: str, content_type: str) -> StreamingHttpResponse | None:
    """Return a stored result as an attachment, or ``None`` if the file was removed.

    Args:
        name: Name in the storage, as ``save_file`` returned it.
        filename: Name of the downloaded file.
    """
    file = open_result(name)
    if file is None:
        return None
    return StreamingHttpResponse(
        _Chunks(file),
        content_type=content_type,
        headers={
            "Content-Length": str(file.size),
            "Content-Disposition": content_disposition_header(True, filename) or "attachment",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
        },
    )


class _Chunks:
    """Chunks of a file. Django calls ``close`` when the response ends, read or not."""

    def __init__(self, file: File[Any]) -> None:
        self.file = file
        self.close = file.close

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        read = sync_to_async(self.file.read, thread_sensitive=False)
        while chunk := await read(CHUNK_BYTES):
            yield chunk
