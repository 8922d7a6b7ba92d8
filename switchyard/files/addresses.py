"""Addresses of storages and of the store of results, validated, with their entries of Django's ``STORAGES``."""

import errno
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from switchyard.broker.errors import SwitchyardError
from switchyard.setting_values import PACKAGES, InvalidSetting, refuse_without

# https://www.postgresql.org/docs/current/errcodes-appendix.html
POSTGRES_DISK_FULL = "53100"


class StorageError(SwitchyardError, OSError):
    """A storage did not carry out an operation. An ``OSError``, as that of a disk: actors retry both."""


class StorageUnavailable(StorageError):
    """The storage did not answer, or refused this user.

    ``operation``, for example ``read results/…``, holds no address and no secret; ``cause`` is the client's name or
    code.
    """

    def __init__(self, operation: str, cause: str) -> None:
        self.operation, self.cause = operation, cause
        super().__init__(
            f"the storage did not {operation}: {cause}; check its address and credentials, and that it is up"
        )


class DiskFull(StorageError):
    """A file was not written, because its disk is full. Nothing lies under its name."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"file {name} was not written: {cause}; free space, nothing has to be restarted")


def is_full(error: Exception) -> bool:
    """Return whether an error of a file or of a database says that a disk is full."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "disk is full" in str(error) or getattr(error.__cause__, "sqlstate", "") == POSTGRES_DISK_FULL


GOOD: Final = "s3://bucket/prefix?region=eu-central-1"
BACKENDS: Final = {
    "file": "switchyard.jobs.storage.WholeFileStorage",
    "s3": "switchyard.files.s3.S3Bucket",
    "gs": "switchyard.files.google.GoogleBucket",
}
# Option of the URL -> option of the storage.
OPTIONS: Final = {
    "s3": {
        "endpoint_url": "endpoint_url",
        "region": "region_name",
        "path_style": "addressing_style",
        "checksums": "checksums",
        "link_s": "querystring_expire",
    },
    "gs": {"project": "project_id"},
    "file": {},
}
# Signatures of version 4 expire after a week at most.
LONGEST_LINK_S: Final = 604_800
RESULT_KINDS: Final = ("broker", "database", "s3", "gs", "class")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")
_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True, slots=True)
class StorageAddress:
    """A validated address. It holds no credentials: those come from the environment of each client.

    Args:
        folder: Path of ``file:``; "" otherwise.
        prefix: Beginning of every key, without a slash at either end.
        options: Further options of the storage.
    """

    scheme: str
    folder: str = ""
    bucket: str = ""
    prefix: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def entry(self) -> dict[str, Any]:
        """The entry of ``STORAGES``. A folder is that of ``MEDIA_ROOT``, which the project sets."""
        if self.scheme == "file":
            return {"BACKEND": BACKENDS["file"]}
        options = {"bucket_name": self.bucket, "location": self.prefix, **self.options}
        return {"BACKEND": BACKENDS[self.scheme], "OPTIONS": options}


@dataclass(frozen=True, slots=True)
class ResultsAddress:
    """Validated address of the store of results: a bucket of ``s3`` and ``gs``, a dotted path of ``class``.

    ``kind``, one of :data:`RESULT_KINDS`, is also the store's name in records.
    """

    kind: str = "broker"
    bucket: StorageAddress | None = None
    path: str = ""


def declared_storage(name: str, value: str) -> dict[str, Any]:
    """Return the entry of ``STORAGES`` for the address in a project's own settings, read from ``name``.

    An address that cannot be used, or whose client is not installed, exits the process with 78: in the middle of a
    project's settings nothing else would catch the error.
    """
    try:
        return address_of(name, value).entry
    except InvalidSetting as error:
        sys.stderr.write(f"switchyard: refused to start: {error}\n")
        raise SystemExit(os.EX_CONFIG) from error


def address_of(name: str, value: str) -> StorageAddress:
    """Return the validated address of a storage.

    Raises:
        InvalidSetting: no such scheme, no bucket, credentials in the URL, an option that is unknown or unusable, or a
            client that is not installed. The message quotes the URL's scheme, bucket and option only: the rest may be
            a secret.
    """
    try:
        parts = urlsplit(value)
        held = parts.username is not None or parts.password is not None or parts.port is not None
    except ValueError:
        raise InvalidSetting(name, "is not a URL", f"use for example {GOOD}") from None
    if parts.scheme not in BACKENDS:
        fact = f"{parts.scheme!r:.40} is none of {', '.join(BACKENDS)}" if parts.scheme else "is not a URL"
        raise InvalidSetting(name, fact, f"use for example file:///var/lib/switchyard/media or {GOOD}")
    if held:
        remedy = "leave them out; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        raise InvalidSetting(name, "holds a user, a password or a port", remedy)
    options = _options(name, parts.scheme, parts.query)
    path = unquote(parts.path)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not path.startswith("/"):
            fact = f"names the host {parts.netloc!r:.70}" if parts.netloc else "names no folder"
            raise InvalidSetting(name, fact, "use three slashes: file:///var/lib/switchyard/media")
        return StorageAddress("file", folder=path)
    bucket, prefix = parts.netloc, path.strip("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise InvalidSetting(name, f"{bucket!r:.70} is not a name of a bucket", f"use for example {GOOD}")
    if _PREFIX.fullmatch(prefix) is None or ".." in prefix or "//" in prefix:
        raise InvalidSetting(name, f"{prefix!r:.70} is not a prefix of keys", "use letters, digits and . _ - / in it")
    refuse_without(name, PACKAGES.get(parts.scheme, ("", "", "")), parts.scheme)
    return StorageAddress(parts.scheme, bucket=bucket, prefix=prefix, options=options)


def results_of(name: str, value: str) -> ResultsAddress:
    """Return the validated address of the store of results; "" is the broker."""
    kind, _, rest = value.partition(":")
    if kind == "cassandra":
        remedy = "write a class with put and get, and name it: class:mysite.results.CassandraResults"
        raise InvalidSetting(name, "cassandra: is not supported", remedy)
    if value and kind not in RESULT_KINDS:
        fact = f"{kind!r:.40} is none of {', '.join(RESULT_KINDS)}"
        raise InvalidSetting(name, fact, f"use for example database: or {GOOD}")
    if kind in ("s3", "gs"):
        return ResultsAddress(kind, address_of(name, value))
    if kind == "class":
        if _DOTTED.fullmatch(rest) is None:
            raise InvalidSetting(name, "names no class", "use for example class:mysite.results.MyResults")
        return ResultsAddress(kind, path=rest)
    if rest:
        raise InvalidSetting(name, f"has more than {kind}: needs", f"write {kind}:")
    return ResultsAddress(kind or "broker")


def _options(name: str, scheme: str, query: str) -> dict[str, Any]:
    known, found = OPTIONS[scheme], {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in known:
            remedy = f"{scheme}: takes {', '.join(known) or 'no options'}"
            raise InvalidSetting(name, f"{key!r:.40} is not an option of {scheme}:", remedy)
        found[known[key]] = _value(name, key, value)
    return found


def _value(name: str, key: str, value: str) -> Any:
    if key in ("path_style", "checksums"):
        if value not in ("0", "1"):
            raise InvalidSetting(name, f"{key}={value!r:.40} is neither 0 nor 1", f"write {key}=1")
        if key == "path_style":
            return "path" if value == "1" else "auto"
        return value == "1"
    if key == "link_s":
        if not (value.isascii() and value.isdigit()) or len(value) > 6 or int(value) > LONGEST_LINK_S:
            fact = f"link_s={value!r:.40} is not a number from 0 to {LONGEST_LINK_S:,}"
            raise InvalidSetting(name, fact, "write link_s=300 for links of five minutes")
        return int(value)
    if key == "endpoint_url":
        return _endpoint(name, value)
    if not _NAME.fullmatch(value):
        raise InvalidSetting(name, f"{key}={value!r:.40} is not a name", f"write for example {key}=eu-central-1")
    return value


def _endpoint(name: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and parts.hostname and not parts.query and (parts.port or 1)
    except ValueError:
        fine, parts = False, urlsplit("")
    if not fine or parts.username is not None or parts.password is not None:
        remedy = "write endpoint_url=https://s3.example.com, without user and password"
        raise InvalidSetting(name, "endpoint_url is not an http: or https: address, or holds a password", remedy)
    return value.rstrip("/")
