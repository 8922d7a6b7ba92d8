"""Addresses of storages: ``file:``, ``s3://`` and ``gs://`` URLs, validated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from switchyard.setting_values import InvalidSetting

SCHEMES: Final = ("file", "s3", "gs")
GOOD: Final = "s3://bucket/prefix?region=eu-central-1"
OPTIONS: Final = {
    "s3": ("endpoint_url", "region", "path_style", "checksums", "link_s"),
    "gs": ("project", "endpoint_url"),
    "file": (),
}
# Signatures of version 4 expire after a week at most.
LONGEST_LINK_S: Final = 604_800
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")


@dataclass(frozen=True, slots=True)
class StorageAddress:
    """A validated address. It holds no credentials: those come from the environment of each client.

    Args:
        scheme: One of :data:`SCHEMES`.
        path: Folder of ``file:``; "" otherwise.
        prefix: Beginning of every key, without a slash at either end.
        endpoint_url: Address of an S3-compatible server, or of Google's emulator; "" for the provider's own.
        path_style: The bucket stands in the path, not in the host's name.
        checksums: Send a SHA-256 of each part, which the server verifies.
        link_s: Seconds for which a download link is valid; 0 downloads through the web.
    """

    scheme: str
    path: str = ""
    bucket: str = ""
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""
    project: str = ""
    path_style: bool = False
    checksums: bool = True
    link_s: int = 0

    @property
    def shown(self) -> str:
        """The address for people: scheme, bucket and prefix."""
        return f"{self.scheme}://{self.path or '/'.join(filter(None, (self.bucket, self.prefix)))}"


def address_of(name: str, value: str) -> StorageAddress:
    """Return the validated address of a storage.

    Args:
        name: Variable or setting, for the error.

    Raises:
        InvalidSetting: no such scheme, no bucket, credentials in the URL, or an option that is unknown or unusable. The
            message quotes the URL's scheme, bucket and option only: the rest may be a secret.
    """
    try:
        parts = urlsplit(value)
        held = parts.username is not None or parts.password is not None or parts.port is not None
    except ValueError:
        raise InvalidSetting(name, "is no URL", f"use for example {GOOD}") from None
    if parts.scheme not in SCHEMES:
        fact = f"{parts.scheme!r:.40} is none of {', '.join(SCHEMES)}" if parts.scheme else "is no URL"
        raise InvalidSetting(name, fact, f"use for example file:///var/lib/switchyard/media or {GOOD}")
    if held:
        remedy = "leave them out; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or GOOGLE_APPLICATION_CREDENTIALS"
        raise InvalidSetting(name, "holds a user, a password or a port", remedy)
    given = _options(name, parts.scheme, parts.query)
    if parts.scheme == "file":
        return _folder(name, parts.netloc, unquote(parts.path))
    bucket, prefix = parts.netloc, unquote(parts.path).strip("/")
    if _BUCKET.fullmatch(bucket) is None:
        raise InvalidSetting(name, f"{bucket!r:.70} is no name of a bucket", f"use for example {GOOD}")
    if _PREFIX.fullmatch(prefix) is None or ".." in prefix or "//" in prefix:
        remedy = "use letters, digits and . _ - / in it"
        raise InvalidSetting(name, f"{prefix!r:.70} is no prefix of keys", remedy)
    return StorageAddress(scheme=parts.scheme, bucket=bucket, prefix=prefix, **given)


def _folder(name: str, host: str, path: str) -> StorageAddress:
    if host not in ("", "localhost") or not path.startswith("/"):
        fact = f"names the host {host!r:.70}" if host else "names no folder"
        raise InvalidSetting(name, fact, "use three slashes: file:///var/lib/switchyard/media")
    return StorageAddress(scheme="file", path=path)


def _options(name: str, scheme: str, query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        if key not in OPTIONS[scheme]:
            known = ", ".join(OPTIONS[scheme])
            remedy = f"{scheme}: takes {known}" if known else f"{scheme}: takes no options"
            raise InvalidSetting(name, f"{key!r:.40} is no option of {scheme}:", remedy)
        found[key] = _value(name, key, value)
    return found


def _value(name: str, key: str, value: str) -> Any:
    if key in ("path_style", "checksums"):
        if value not in ("0", "1"):
            raise InvalidSetting(name, f"{key}={value!r:.40} is neither 0 nor 1", f"write {key}=1")
        return value == "1"
    if key == "link_s":
        if not (value.isascii() and value.isdigit()) or len(value) > 6 or int(value) > LONGEST_LINK_S:
            fact = f"link_s={value!r:.40} is no number from 0 to {LONGEST_LINK_S:,}"
            raise InvalidSetting(name, fact, "write link_s=300 for links of five minutes")
        return int(value)
    if key == "endpoint_url":
        return _endpoint(name, value)
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", value):
        raise InvalidSetting(name, f"{key}={value!r:.40} is no name", f"write for example {key}=eu-central-1")
    return value


def _endpoint(name: str, value: str) -> str:
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and parts.hostname and not parts.query and (parts.port or 1)
    except ValueError:
        fine, parts = False, urlsplit("")
    if not fine or parts.username is not None or parts.password is not None:
        remedy = "write endpoint_url=https://s3.example.com, without user and password"
        raise InvalidSetting(name, "endpoint_url is no http: or https: address, or holds a password", remedy)
    return value.rstrip("/")
