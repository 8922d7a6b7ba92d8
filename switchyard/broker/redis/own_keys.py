"""Strict reading of the yard's own keys: what cannot be read is left out, and its key is noted for the doctor.

Whoever may write to the server may write anything: other types, numbers of a thousand digits, JSON nested without end.
"""

import json
import logging
import time
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from switchyard.broker.clock import LARGEST
from switchyard.broker.shapes import Whole

T = TypeVar("T")

# Errors of a decoder at a value that is not of its type.
UNREADABLE: Final = (ValueError, RecursionError)
NUMBER: Final = msgspec.json.Decoder(Whole)
KEPT_S: Final = 120.0
MOST_NOTED: Final = 200

logger = logging.getLogger("switchyard.broker")
_noted: dict[str, float] = {}


def note(key: str, fault: object) -> None:
    """Note that a key, or a part of it, cannot be read. Logged at most every two minutes for each key."""
    key, now_s = str(key.encode("unicode_escape"), "ascii"), time.monotonic()
    if now_s - _noted.get(key, -KEPT_S) >= KEPT_S:
        logger.warning("key %s cannot be read, it is left out: %.200r", key, fault)
        if len(_noted) >= MOST_NOTED:
            _noted.clear()
    _noted[key] = now_s


def noted() -> list[str]:
    """Return the keys that this process could not read within the last two minutes."""
    since_s = time.monotonic() - KEPT_S
    return sorted(key for key, at_s in list(_noted.items()) if at_s >= since_s)


def encode(value: Any) -> bytes:
    """Return a value as JSON that :func:`read` takes: a lone surrogate, as of an exception's text, becomes ``?``."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False).encode("utf-8", "replace")


def utf8(raw: bytes) -> str:
    """Return bytes of a key as text, what is not UTF-8 replaced."""
    return str(raw, "utf-8", "replace")


def texts_of(words: Sequence[bytes]) -> dict[str, str]:
    """Return names and values of an answer that has them one after the other."""
    texts = [utf8(word) for word in words]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def read(decoder: msgspec.json.Decoder[T] | msgspec.msgpack.Decoder[T], data: bytes, key: str) -> T | None:
    """Return the value of a key, or of a part of it; ``None``, and noted, where it is not of the decoder's type."""
    try:
        return decoder.decode(data)
    except UNREADABLE as error:
        note(key, error)
        return None


def number(data: bytes | None, key: str) -> int:
    """Return a whole number from 0 to 2**53; 0 for none, and for one that cannot be read."""
    return 0 if data is None else read(NUMBER, data, key) or 0


def moment(score: Any) -> int:
    """Return a score as ms since the epoch, within the years that a calendar has; scores are any number, or ``inf``."""
    return int(min(max(float(score), 0), LARGEST))


def unread(command: Any) -> Any:
    """Return the answer to a read as if its key were not there."""
    name = command[0]
    if name == "HMGET":
        return [None] * (len(command) - 2)
    if name in ("GET", "HGET", "LINDEX"):
        return None
    return 0 if name.endswith(("LEN", "CARD", "COUNT", "EXISTS")) else [b"0", []] if name == "HSCAN" else []
