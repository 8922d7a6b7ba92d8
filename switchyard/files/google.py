"""Storage on Google Cloud Storage, by Google's own library. Credentials are the application's default ones."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Final

from switchyard.files.addresses import StorageAddress
from switchyard.files.bucket import DIGEST, PART_BYTES, Body, BucketStorage, FileEntry, Stored
from switchyard.files.errors import ExtraMissing, StorageUnavailable

DEADLINE_S: Final = 30.0


class GoogleStorage(BucketStorage):
    """Django's storage on a bucket of Google's. Downloads go through the web: a link needs a private key of its own."""

    def __init__(self, address: StorageAddress, *, deadline_s: float = DEADLINE_S) -> None:
        super().__init__(address)
        self._deadline_s = deadline_s
        self._made: tuple[int, Any] | None = None

    def deconstruct(self) -> tuple[str, list[Any], dict[str, Any]]:
        """Return what makes an equal storage."""
        return (f"{type(self).__module__}.{type(self).__name__}", [], {"address": self.address})

    @property
    def bucket(self) -> Any:
        """The bucket, by a client of this process."""
        made, pid = self._made, os.getpid()
        if made is None or made[0] != pid:
            made = self._made = (pid, self._connect())
        return made[1]

    def prepare(self) -> None:
        """Load the client."""
        _ = self.bucket

    def quick(self) -> GoogleStorage:
        """Return a storage at the same address that waits for 1.5 s and repeats nothing."""
        return GoogleStorage(self.address, deadline_s=1.5)

    def reach(self) -> None:
        """Ask for the bucket. Raises ``StorageUnavailable`` when it is not there, or refuses this user."""
        with _translated("reach its bucket"):
            next(iter(self.bucket.client.list_blobs(self.bucket, max_results=1, **self._limits())), None)

    def look(self, key: str) -> Stored | None:
        """Return the description of an object, or ``None``."""
        with _translated(f"find {key}"):
            blob = self.bucket.get_blob(key, **self._limits())
        if blob is None:
            return None
        return Stored(int(blob.size), (blob.metadata or {}).get(DIGEST, ""), str(blob.generation), blob.updated)

    def body_of(self, key: str, start: int, stored: Stored) -> Body:
        """Return the content from a byte on, fetched in pieces."""
        return _Content(self.bucket.blob(key), key, start, stored.size_bytes, self._limits())

    def write(self, key: str, parts: Iterator[bytes], *, sha256: str, content_type: str) -> None:
        """Write an object in a resumable upload; an upload that fails leaves nothing."""
        blob = self.bucket.blob(key, chunk_size=PART_BYTES)
        blob.metadata = {DIGEST: sha256}
        with _translated(f"write {key}"):
            blob.upload_from_file(_Reader(parts), content_type=content_type, **self._limits())

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        with contextlib.suppress(FileNotFoundError), _translated(f"remove {key}"):
            self.bucket.blob(key).delete(**self._limits())

    def names_below(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return folders and files directly below a prefix."""
        with _translated(f"list {prefix}"):
            found = self.bucket.client.list_blobs(self.bucket, prefix=prefix, delimiter="/", **self._limits())
            files = [name for blob in found if (name := blob.name[len(prefix) :])]
            folders = sorted(name[len(prefix) :].rstrip("/") for name in found.prefixes)
        return folders, files

    def objects_below(self, prefix: str, after: str) -> Iterator[FileEntry]:
        """Yield every object below a prefix, a thousand for each request."""
        asked: dict[str, Any] = {"prefix": prefix} | ({"start_offset": after} if after else {})
        with _translated(f"list {prefix}"):
            for blob in self.bucket.client.list_blobs(self.bucket, **asked, **self._limits()):
                if blob.name > after:  # Google's offset includes the name itself
                    yield FileEntry(blob.name, int(blob.size), blob.updated)

    def _limits(self) -> dict[str, Any]:
        """Return the limits of one call: of a request, and of all its repetitions."""
        from google.cloud.storage.retry import DEFAULT_RETRY

        retry = DEFAULT_RETRY.with_timeout(self._deadline_s) if self._deadline_s >= DEADLINE_S else None
        return {"timeout": self._deadline_s, "retry": retry}

    def _connect(self) -> Any:
        with _translated("start a client"):
            from google.auth.credentials import AnonymousCredentials
            from google.cloud import storage  # takes half a second, and only yards on Google's have it

            options: dict[str, Any] = {"project": self.address.project or None}
            if self.address.endpoint_url:
                options |= {"client_options": {"api_endpoint": self.address.endpoint_url}}
                options |= {"credentials": AnonymousCredentials(), "project": self.address.project or "emulator"}
            return storage.Client(**options).bucket(self.address.bucket)


class _Reader:
    """Parts as a file that the client reads forwards."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._left, self._at = parts, bytearray(), 0

    def read(self, count: int = -1, /) -> bytes:
        while count < 0 or len(self._left) < count:
            part = next(self._parts, None)
            if part is None:
                break
            self._left += part
        end = len(self._left) if count < 0 else count
        data = bytes(self._left[:end])
        del self._left[:end]
        self._at += len(data)
        return data

    def tell(self) -> int:
        return self._at


class _Content:
    """Content of an object, fetched in pieces of one part."""

    def __init__(self, blob: Any, key: str, start: int, size_bytes: int, limits: dict[str, Any]) -> None:
        self._blob, self._key, self._at, self._size = blob, key, start, size_bytes
        self._limits = limits
        self._piece = b""

    def read(self, count: int, /) -> bytes:
        if not self._piece and self._at < self._size:
            end = min(self._at + PART_BYTES, self._size) - 1
            with _translated(f"read {self._key}"):
                self._piece = self._blob.download_as_bytes(start=self._at, end=end, **self._limits)
            self._at = end + 1
        data, self._piece = self._piece[:count], self._piece[count:]
        return data

    def close(self) -> None:
        self._piece = b""


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    """Raise the client's errors as those of a storage. Their texts hold addresses, so only their names are kept."""
    try:
        from google.api_core.exceptions import GoogleAPIError, NotFound
        from google.auth.exceptions import GoogleAuthError
        from google.resumable_media import DataCorruption, InvalidResponse
        from requests import RequestException
    except ImportError as error:
        raise ExtraMissing("google-cloud-storage", "gcs") from error
    try:
        yield
    except NotFound as error:
        if operation.startswith(("reach", "write")):
            raise StorageUnavailable(operation, "NotFound") from error
        raise FileNotFoundError(f"the storage has nothing to {operation}") from None
    except (GoogleAPIError, GoogleAuthError, DataCorruption, InvalidResponse, RequestException) as error:
        raise StorageUnavailable(operation, type(error).__name__) from error
