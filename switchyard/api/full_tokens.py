"""Tokens that have as many event streams open as they may, so that more are refused before any other work."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from switchyard.api.problems import Problem

RETRY_AFTER_S: Final = 15
_EVENTS: Final = re.compile(r"/jobs/[^/]+/events\Z")
# Caller -> digest of its token, which was checked when its streams began.
_full: dict[str, bytes] = {}
# Digest -> streams that are open.
_streams: dict[bytes, int] = {}


def is_stream(method: str, path: str) -> bool:
    """Return whether a request is for the events of a job."""
    return method == "GET" and _EVENTS.search(path) is not None


def mark_full(caller: str, token: str, streams: int) -> None:
    """Note that a caller has all its streams open.

    Args:
        token: Its plain token, which is valid.
        streams: How many these are.
    """
    digest = _digest(token)
    _full[caller], _streams[digest] = digest, streams


def mark_free(caller: str) -> None:
    """Note that a caller has closed a stream."""
    _streams.pop(_full.pop(caller, b""), None)


def refuse_full(token: str) -> None:
    """Refuse a stream of a token that has all its streams open.

    Raises:
        Problem: 429.
    """
    if _streams and (streams := _streams.get(_digest(token))):
        raise too_many_streams(streams)


def too_many_streams(most: int) -> Problem:
    """Return the refusal of one stream more."""
    detail = f"{most} event streams of this token or user are open, the limit; close some"
    return Problem(429, detail, headers={"Retry-After": str(RETRY_AFTER_S)})


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
