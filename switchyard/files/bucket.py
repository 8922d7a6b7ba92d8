"""Common part of the storages on buckets, before a class of ``django-storages``."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from django.core.files.base import File
from django.core.files.storage import Storage

from switchyard.files.addresses import StorageUnavailable

# Content of an open file in memory; more of it is on the disk.
SPOOL_BYTES: Final = 8 * 1024 * 1024
# A server that does not answer costs its caller the sum at most: nothing is repeated, for the job is retried.
CONNECT_S: Final = 1.0
READ_S: Final = 3.5
CLIENTS: Final = ("boto3", "botocore", "google", "requests", "s3transfer", "urllib3")
MISSING: Final = ("404", "NoSuchKey", "NotFound")


class BucketStorage(Storage):
    """Errors of the client as those of a storage, content that is fetched at ``open``, and no public address."""

    scheme = ""
    bucket_name: str
    location: str

    @property
    def shown(self) -> str:
        """The address for people: scheme, bucket and prefix."""
        return f"{self.scheme}://{'/'.join(filter(None, (self.bucket_name, self.location)))}"

    @abstractmethod
    def objects_below(self, prefix: str, after: str) -> Iterator[tuple[str, int, datetime]]:
        """Yield key, bytes and time of every object below a prefix, in the order of keys, from ``after`` on."""

    def download_link(self, name: str, *, filename: str, content_type: str) -> str:
        """Return a short-lived link of a file, "" where downloads go through the web."""
        return ""

    def url(self, name: str | None, *args: Any, **options: Any) -> str:
        """Return "": no object is public."""
        return ""

    def exists(self, name: str) -> bool:
        with translated("find", name):
            return super().exists(name)

    def size(self, name: str) -> int:
        with translated("find", name):
            return super().size(name)

    def get_modified_time(self, name: str) -> datetime:
        with translated("find", name):
            return super().get_modified_time(name)

    def delete(self, name: str) -> None:
        with translated("remove", name):
            super().delete(name)

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        with translated("list", path):
            return super().listdir(path)

    def _open(self, name: str, mode: str = "rb") -> File[Any]:
        with translated("read", name):
            file: File[Any] = super()._open(name, mode)  # type: ignore[misc]  # the stubs leave it out
            try:
                file.seek(0)  # fetches the content: who opens a file learns that the storage is away
            except BaseException:
                file.close()
                raise
            return file

    def _save(self, name: str, content: File[Any]) -> str:
        with translated("write", name):
            return str(super()._save(name, content))  # type: ignore[misc]


@contextlib.contextmanager
def translated(operation: str, name: str) -> Iterator[None]:
    """Raise a client's errors as those of a storage. Their texts hold addresses, so only their names are kept."""
    try:
        yield
    except RecursionError as error:  # botocore asks for the region again and again where a redirect names none
        raise StorageUnavailable(f"{operation} {name}", "PermanentRedirect") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in CLIENTS:
            raise
        response = getattr(error, "response", None)
        code = (response.get("Error", {}).get("Code") if isinstance(response, dict) else "") or type(error).__name__
        if code in MISSING and operation in ("find", "read"):
            raise FileNotFoundError(f"{name}: is not in the storage") from None
        raise StorageUnavailable(f"{operation} {name}", code) from error
