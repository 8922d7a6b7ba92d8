"""Django's storage on a bucket: private objects, written whole, read in pieces, verified by their SHA-256."""

from __future__ import annotations

import hashlib
import io
import mimetypes
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from django.core.files.base import File
from django.core.files.storage import Storage
from django.core.files.utils import validate_file_name

from switchyard.files.addresses import StorageAddress
from switchyard.files.errors import FileDamaged

# One part is in memory at a time, by two copies at worst.
PART_BYTES: Final = 8 * 1024 * 1024
BUFFER_BYTES: Final = 256 * 1024
DIGEST: Final = "sha256"


@dataclass(frozen=True, slots=True)
class Stored:
    """Description of an object: ``sha256`` is that of its upload, "" of an object that others wrote."""

    size_bytes: int
    sha256: str
    version: str
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of a listing, by its name in the storage."""

    name: str
    size_bytes: int
    modified_at: datetime


class Body(Protocol):
    """Stream of an object's content."""

    def read(self, count: int, /) -> bytes:
        """Return at most so many bytes; none at the end."""

    def close(self) -> None:
        """Release the connection."""


class BucketStorage(Storage):
    """Common part of the storages on buckets. Safe across forks and threads: clients are made in each process.

    Objects are private: ``url`` gives a link only where the address asks for links.
    """

    def __init__(self, address: StorageAddress) -> None:
        self.address = address

    @abstractmethod
    def reach(self) -> None:
        """Ask for the bucket. Raises ``StorageUnavailable`` when it is not there, or refuses this user."""

    @abstractmethod
    def prepare(self) -> None:
        """Load the client, which takes up to a second, without a request."""

    @abstractmethod
    def quick(self) -> BucketStorage:
        """Return a storage at the same address that gives up within 2 s."""

    @abstractmethod
    def look(self, key: str) -> Stored | None:
        """Return the description of an object, or ``None``."""

    @abstractmethod
    def body_of(self, key: str, start: int, stored: Stored) -> Body:
        """Return the content from a byte on. Raises ``FileNotFoundError`` without the object."""

    @abstractmethod
    def write(self, key: str, parts: Iterator[bytes], *, sha256: str, content_type: str) -> None:
        """Write an object whose parts have :data:`PART_BYTES`, the last one excepted. It appears when it is whole."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""

    @abstractmethod
    def names_below(self, prefix: str) -> tuple[list[str], list[str]]:
        """Return folders and files directly below a prefix, without it."""

    @abstractmethod
    def objects_below(self, prefix: str, after: str) -> Iterator[FileEntry]:
        """Yield every object below a prefix by its key, in the order of keys, from the one behind ``after`` on."""

    def close(self) -> None:
        """Close the connections of this process; the next request opens others."""

    def signed(self, key: str, *, filename: str, content_type: str) -> str:
        """Return a link that is valid for ``link_s`` seconds, or "" where the storage makes none."""
        return ""

    def link(self, name: str, *, filename: str, content_type: str) -> str:
        """Return a short-lived download link of a file, "" where downloads go through the web."""
        if not self.address.link_s:
            return ""
        return self.signed(self.key_of(name), filename=filename, content_type=content_type)

    def key_of(self, name: str) -> str:
        """Return the object's key. Raises ``SuspiciousFileOperation`` for a name that leads out of the prefix."""
        name = name.replace("\\", "/")
        validate_file_name(name, allow_relative_path=True)
        return f"{self.address.prefix}/{name}" if self.address.prefix else name

    def exists(self, name: str) -> bool:
        """Return whether a file is stored."""
        return self.look(self.key_of(name)) is not None

    def size(self, name: str) -> int:
        """Return a file's bytes."""
        return self._known(name).size_bytes

    def get_modified_time(self, name: str) -> datetime:
        """Return the time of a file's upload."""
        return self._known(name).modified_at

    def delete(self, name: str) -> None:
        """Remove a file, if there is one."""
        self.remove(self.key_of(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """Return the folders and files directly below a path."""
        folder = path.strip("/")
        parts = [part for part in (self.address.prefix, folder if folder != "." else "") if part]
        return self.names_below("".join(f"{part}/" for part in parts))

    def files_below(self, folder: str, *, after: str = "") -> Iterator[FileEntry]:
        """Yield every file below a folder, also those in folders of it, in the order of their names."""
        start = len(self.address.prefix) + 1 if self.address.prefix else 0
        for found in self.objects_below(f"{self.key_of(folder)}/", self.key_of(after) if after else ""):
            yield FileEntry(found.name[start:], found.size_bytes, found.modified_at)

    def url(self, name: str | None) -> str:
        """Return a short-lived link, or "" where downloads go through the web: no object is public."""
        if not name:
            return ""
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return self.link(name, filename=name.rpartition("/")[2], content_type=kind)

    def replace(self, name: str, content: bytes, *, content_type: str) -> None:
        """Write a small file under its name, over one that is there."""
        digest = hashlib.sha256(content).hexdigest()
        self.write(self.key_of(name), iter([content]), sha256=digest, content_type=content_type)

    def _known(self, name: str) -> Stored:
        stored = self.look(self.key_of(name))
        if stored is None:
            raise FileNotFoundError(f"{name}: is not in the storage")
        return stored

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        if mode not in ("r", "rb"):
            raise ValueError(f"{name}: mode {mode!r} is not supported; save a new file")
        stored = self._known(name)
        file = File(io.BufferedReader(StoredContent(self, name, stored), BUFFER_BYTES), name)
        file.size = stored.size_bytes
        return file

    def _save(self, name: str, content: File[Any]) -> str:
        key, digest, sent_bytes = self.key_of(name), hashlib.sha256(), 0
        for chunk in content.chunks(BUFFER_BYTES):
            digest.update(_bytes_of(chunk))
            sent_bytes += len(_bytes_of(chunk))
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        self.write(key, _parts(content), sha256=digest.hexdigest(), content_type=kind)
        stored = self.look(key)
        if stored is None or stored.size_bytes != sent_bytes:
            fact = f"has {stored.size_bytes if stored else 0} bytes after an upload of {sent_bytes}"
            raise FileDamaged(name, fact)
        return name.replace("\\", "/")


class StoredContent(io.RawIOBase):
    """Content of an object, read as it arrives. Reading from start to end compares the SHA-256 with the upload's."""

    def __init__(self, storage: BucketStorage, name: str, stored: Stored) -> None:
        super().__init__()
        self._storage, self._name, self._stored = storage, name, stored
        self._at = 0
        self._body: Body | None = None
        self._digest: Any = hashlib.sha256()

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return ``True``: the rest is requested again."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte. Content that is not read from its start is not verified."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stored.size_bytes}[whence]
        wanted = max(0, start + offset)
        if wanted != self._at:
            self._drop()
            self._at = wanted
            self._digest = hashlib.sha256() if wanted == 0 else None
        return self._at

    def tell(self) -> int:
        """Return the next byte's position."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer.

        Raises:
            FileDamaged: the content ended early, or is not what was uploaded.
            StorageUnavailable: the connection broke.
        """
        if self._at >= self._stored.size_bytes:
            return 0
        if self._body is None:
            self._body = self._storage.body_of(self._storage.key_of(self._name), self._at, self._stored)
        data = self._body.read(len(buffer))
        if not data:
            fact = f"ends after {self._at} of {self._stored.size_bytes} bytes"
            raise FileDamaged(self._name, fact)
        buffer[: len(data)] = data
        self._at += len(data)
        if self._digest is not None:
            self._digest.update(data)
            if self._at == self._stored.size_bytes and self._stored.sha256 not in ("", self._digest.hexdigest()):
                raise FileDamaged(self._name, "has another SHA-256 than what was written")
        return len(data)

    def close(self) -> None:
        """Release the connection."""
        self._drop()
        super().close()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


def _parts(content: File[Any]) -> Iterator[bytes]:
    content.seek(0)
    part = bytearray()
    for chunk in content.chunks(PART_BYTES):
        if len(chunk) == PART_BYTES and not part and isinstance(chunk, bytes):
            yield chunk
            continue
        part += _bytes_of(chunk)
        while len(part) >= PART_BYTES:
            yield bytes(part[:PART_BYTES])
            del part[:PART_BYTES]
    yield bytes(part)


def _bytes_of(chunk: bytes | str) -> bytes:
    return chunk if isinstance(chunk, bytes) else str(chunk).encode()
