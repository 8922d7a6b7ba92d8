"""Results of jobs: files, in the default storage under generated names, and values in stores beside the records."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

from asgiref.sync import sync_to_async
from django.core.files.base import ContentFile, File
from django.core.files.storage import default_storage, storages
from django.db import close_old_connections
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from django.utils.http import content_disposition_header
from django.utils.module_loading import import_string

from switchyard.broker import clock
from switchyard.broker.stores.result_stores import ResultStore, ResultStores
from switchyard.files.addresses import ResultsAddress, StorageAddress, StorageUnavailable
from switchyard.files.bucket import BucketStorage

FOLDER = "results"
MAX_NAME_CHARACTERS = 80
MAX_SUFFIX_CHARACTERS = 16
CHUNK_BYTES = 64 * 1024
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_STORED = re.compile(FOLDER + r"/[0-9]{4}/[0-9]{2}/[0-9a-f]{32}/[A-Za-z0-9_-][A-Za-z0-9._-]*")


def save_file(filename: str, content: bytes | File[Any], content_type: str) -> dict[str, Any]:
    """Store a file, under its name once it is complete; return its description, for the actor to return as its result.

    Args:
        filename: Name of the download; it has no influence on where the file is stored.
        content_type: For example ``application/pdf``; sent with the download.

    Returns:
        ``{"file": storage name, "filename", "content_type", "size_bytes", "sha256"}``.
    """
    file: File[Any] = ContentFile(content) if isinstance(content, bytes) else content
    digest, size_bytes, shown = hashlib.sha256(), 0, safe_name(filename)
    for chunk in file.chunks(CHUNK_BYTES):
        digest.update(chunk)
        size_bytes += len(chunk)
    file.seek(0)
    stored = default_storage.save(f"{FOLDER}/{timezone.now():%Y/%m}/{uuid.uuid4().hex}/{shown}", file)
    described = {"file": stored, "filename": shown, "content_type": content_type, "size_bytes": size_bytes}
    return {**described, "sha256": digest.hexdigest()}


def save_path(filename: str, path: Path | str, content_type: str) -> dict[str, Any]:
    """Store a copy of a local file, read in chunks, as ``save_file`` does. The local file stays."""
    with Path(path).open("rb") as opened:
        return save_file(filename, File(opened), content_type)


def open_result(name: str) -> File[Any] | None:
    """Open a stored result; return ``None`` if it was removed or ``save_file`` never makes such a name.

    Raises:
        StorageError: the storage did not answer, or what it holds is not what was written.
    """
    if not is_result_name(name):
        return None
    try:
        return default_storage.open(name, "rb")
    except FileNotFoundError:
        return None


def is_result_name(name: object) -> bool:
    """Return whether ``save_file`` makes such a storage name, so that the file is in the results' folder."""
    return isinstance(name, str) and _STORED.fullmatch(name) is not None


def safe_name(filename: str) -> str:
    """Return a file name of letters, digits, ``.``, ``_`` and ``-``: no folder, not hidden, at most 80 characters."""
    cleaned = _UNSAFE.sub("_", filename.replace("\\", "/").rpartition("/")[2]).strip("._")
    stem, _, suffix = cleaned.rpartition(".")
    if not stem or not suffix.isalnum() or len(suffix) > MAX_SUFFIX_CHARACTERS:
        return cleaned[:MAX_NAME_CHARACTERS].rstrip("._") or "result"
    return f"{stem[: MAX_NAME_CHARACTERS - len(suffix) - 1]}.{suffix}"


# The address holds a signature: it belongs neither into caches nor into other sites' logs.
LINK_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}

logger = logging.getLogger(__name__)


def download(name: str, *, filename: str, content_type: str) -> HttpResponseBase | None:
    """Return a stored result as an attachment, or ``None`` if the file was removed.

    It is the file, a redirect to the storage, or 503 while the storage does not answer.
    """
    try:
        return open_download(name, filename=filename, content_type=content_type)
    except StorageUnavailable as error:
        logger.warning("download failed: %s", error)
        text, headers = "The storage does not answer. The file is kept; try again later.", {"Retry-After": "5"}
        return HttpResponse(text, status=503, content_type="text/plain", headers=headers)


def open_download(name: str, *, filename: str, content_type: str) -> HttpResponseBase | None:
    """Return the same as ``download``, but for an unavailable storage.

    Raises:
        StorageUnavailable: the storage did not answer.
    """
    storage = storages["default"]
    if isinstance(storage, BucketStorage) and is_result_name(name):
        link = storage.download_link(name, filename=filename, content_type=content_type)
        if link and storage.exists(name):
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


class _Chunks:
    """Chunks of a file. Django calls ``close`` when the response ends, read or not."""

    def __init__(self, file: File[Any]) -> None:
        self.file = file
        self.close = file.close

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        read = sync_to_async(self.file.read, thread_sensitive=False)
        while chunk := await read(CHUNK_BYTES):
            yield chunk


EVERY_S: Final = 60.0
BATCH: Final = 500
STORES_FOLDER = "job-results"


def result_stores(address: ResultsAddress) -> ResultStores:
    """Return the stores for ``SWITCHYARD_RESULTS_URL``.

    Large results go to the project's storage, or to the database without it.
    """
    makers: dict[str, Callable[[], ResultStore]] = {"storage": LargeResults, "database": DatabaseResults}
    if address.bucket is not None:
        makers[address.kind] = partial(BucketResults, address.bucket)
    elif address.kind == "class":
        makers["class"] = lambda: import_string(address.path)()
    first = "" if address.kind == "broker" else address.kind
    return ResultStores(makers, first=first, large=("storage", "database"))


class DatabaseResults:
    """Result store in the table ``StoredResult``. Each process removes a batch of expired rows once a minute."""

    def __init__(self) -> None:
        from switchyard.jobs.models import StoredResult  # models are not loaded yet when the broker is built

        self._rows, self._next_s = StoredResult.objects, 0.0

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        close_old_connections()
        try:
            expires_at = clock.utc_now() + timedelta(milliseconds=keep_ms)
            self._rows.update_or_create(job_id=job_id, defaults={"text": text, "expires_at": expires_at})
            self._remove_expired()
        finally:
            close_old_connections()
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        close_old_connections()
        try:
            found = self._rows.filter(job_id=job_id, expires_at__gt=clock.utc_now())
            text: str | None = found.values_list("text", flat=True).first()
            return text
        finally:
            close_old_connections()

    def _remove_expired(self) -> None:
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + EVERY_S
        expired = self._rows.filter(expires_at__lte=clock.utc_now()).values_list("pk", flat=True)
        self._rows.filter(pk__in=list(expired[:BATCH])).delete()


class BucketResults:
    """Result store in a bucket: ``job-results/<job id>.json``. A lifecycle rule of the bucket removes what is old."""

    def __init__(self, address: StorageAddress) -> None:
        entry = address.entry
        entry["OPTIONS"]["file_overwrite"] = True
        self._storage = cast(Any, storages.create_storage(entry))
        _ = self._storage.bucket  # loads the client, which takes up to a second, without a request

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        self._storage.save(f"{STORES_FOLDER}/{job_id}.json", ContentFile(text.encode()))
        return ""

    def get(self, job_id: str, place: str) -> str | None:
        try:
            with self._storage.open(f"{STORES_FOLDER}/{job_id}.json") as file:
                return str(file.read(), "utf-8")
        except FileNotFoundError:
            return None


class LargeResults:
    """Result store in the project's storage, under a generated name, with the files of results."""

    def put(self, job_id: str, text: str, *, keep_ms: int) -> str:
        return str(save_file("result.json", text.encode(), "application/json")["file"])

    def get(self, job_id: str, place: str) -> str | None:
        file = open_result(place)
        if file is None:
            return None
        with file:
            return str(file.read(), "utf-8")
