"""Stored results as downloads: streamed, or by a short-lived link where the storage makes links."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Any

from asgiref.sync import sync_to_async
from django.core.files.base import File
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils.http import content_disposition_header

from switchyard.files.errors import StorageUnavailable
from switchyard.jobs.results import open_result, result_link

RETRY_AFTER_S = 5
# The address holds a signature: it belongs neither into caches nor into other sites' logs.
LINK_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
CHUNK_BYTES = 64 * 1024

logger = logging.getLogger(__name__)


def download(name: str, *, filename: str, content_type: str) -> HttpResponseBase | None:
    """Return a stored result as an attachment, or ``None`` if the file was removed.

    Args:
        name: Name in the storage, as ``save_file`` returned it.
        filename: Name of the downloaded file.

    Returns:
        The file, a redirect to the storage, or 503 while the storage does not answer.
    """
    try:
        return open_download(name, filename=filename, content_type=content_type)
    except StorageUnavailable as error:
        return unavailable(error)


def open_download(name: str, *, filename: str, content_type: str) -> HttpResponseBase | None:
    """Return the same as ``download``, but for an unavailable storage.

    Raises:
        StorageUnavailable: the storage did not answer.
    """
    if link := result_link(name, filename=filename, content_type=content_type):
        return HttpResponseRedirect(link, headers=LINK_HEADERS)
    if (file := open_result(name)) is None:
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


def unavailable(error: StorageUnavailable) -> HttpResponse:
    """Return the answer of a page while the storage does not answer; log why."""
    logger.warning("download failed: %s", error)
    text = "The storage does not answer. The file is kept; try again later."
    return HttpResponse(text, status=503, content_type="text/plain", headers={"Retry-After": str(RETRY_AFTER_S)})


class _Chunks:
    """Chunks of a file. Django calls ``close`` when the response ends, read or not."""

    def __init__(self, file: File[Any]) -> None:
        self.file = file
        self.close = file.close

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        read = sync_to_async(self.file.read, thread_sensitive=False)
        while chunk := await read(CHUNK_BYTES):
            yield chunk
