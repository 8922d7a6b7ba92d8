"""Bodies of messages: strict JSON of limited size.

A value is either decoded to an equal one or refused with its path. Refused are NaN and infinities, lone surrogates,
keys that are not text, repeated keys, nesting deeper than 400 levels, and types that JSON does not have. Tuples are
decoded as lists; enumerations and other subclasses of text, numbers, lists and dicts as their base type.

A lower bound of the size is computed before encoding, so that a caller's gigabyte is refused without a second one.
"""

import datetime
import json
import logging
import math
from collections.abc import Mapping, Set
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

import msgspec

from switchyard.broker.errors import PayloadTooLarge, UnencodablePayload, UnreadablePayload

# In order: a datetime is a date as well. ``{}`` stands for the value.
_BY_TYPE: Final[tuple[tuple[Any, str], ...]] = (
    ((datetime.date, datetime.time), "{}.isoformat()"),
    (datetime.timedelta, "{}.total_seconds()"),
    ((Decimal, UUID, PurePath), "str({})"),
    (Enum, "{}.value"),
    (Set, "sorted({})"),
    ((bytes, bytearray, memoryview), "base64.b64encode({}).decode()"),
)

SHOWN_KEY: Final = 40


def expression_for(value: Any) -> str:
    """Return an expression with ``{}`` for the value, or "" when none is known."""
    for types, expression in _BY_TYPE:
        if isinstance(value, types):
            return expression
    # A row and a lazy text of Django, which is not imported here.
    if hasattr(value, "_meta") and hasattr(value, "pk"):
        return "{}.pk"
    if type(value).__name__ == "__proxy__":
        return "str({})"
    return "dataclasses.asdict({})" if is_dataclass(value) else ""


def _cut(text: str, longest: int = SHOWN_KEY) -> str:
    return text if len(text) <= longest else text[:SHOWN_KEY] + "…"


def kind_of(value: Any) -> str:
    """Return the type of a value with its article: ``an int``."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}"


WARN_BYTES: Final = 64 * 1024
LIMIT_BYTES: Final = 1024 * 1024
# A step of a pipeline nests two levels deeper. Python's recursion limit is near 1,000, less the caller's frames.
DEEPEST: Final = 400

_ATOMS: Final = frozenset((int, bool, type(None)))
_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(dict[str, Any])

_warned: set[str] = set()
logger = logging.getLogger("switchyard.payload")


class _Uncommon(Exception):
    """A value that only the slower encoding can judge, which copies it and tracks the path."""


class _Refused(Exception):
    """A value that JSON cannot represent."""

    def __init__(self, path: str, fact: str, remedy: str = "") -> None:
        self.path, self.fact, self.remedy = path, fact, remedy


class _Repeated(dict[str, Any]):
    """An object of a foreign body in which a key is repeated."""

    key = ""


def encode(fields: Mapping[str, Any], *, limit_bytes: int | None = LIMIT_BYTES) -> bytes:
    """Return a message's fields as compact UTF-8 JSON. A body over 64 KiB is logged, once for each actor.

    Args:
        limit_bytes: Longest body; ``None`` for a message that was accepted before and only grew its options.

    Raises:
        PayloadTooLarge: the body is, or would be, longer.
        UnencodablePayload: a value would not be decoded to an equal one.
    """
    try:
        least_bytes = _weigh(fields, DEEPEST)
        if limit_bytes is not None and least_bytes > limit_bytes:
            raise PayloadTooLarge(_actor(fields), least_bytes, limit_bytes)
        body = _ENCODER.encode(fields)
    except (_Uncommon, ValueError, RecursionError):
        body = _encode_uncommon(fields, limit_bytes)
    if len(body) > WARN_BYTES:
        if limit_bytes is not None and len(body) > limit_bytes:
            raise PayloadTooLarge(_actor(fields), len(body), limit_bytes)
        _warn(_actor(fields), len(body))
    return body


def decode(body: bytes) -> dict[str, Any]:
    """Return the fields in a body; ``UnreadablePayload`` when it is not strict JSON, or not an object."""
    try:
        fields: dict[str, Any] = _DECODER.decode(body)
        if len(body) > 2 * DEEPEST:  # a shorter one has no room for so many brackets
            _weigh(fields, DEEPEST)
        # A body of this encoder is encoded to the same bytes again. Any other may repeat a key.
        if _ENCODER.encode(fields) == body:
            return fields
    except (_Uncommon, ValueError, RecursionError):  # msgspec's own errors are among them
        pass
    return _decode_foreign(body)


def _weigh(container: Any, depth: int) -> int:
    """Return the fewest bytes that a container takes as JSON.

    Raises:
        _Uncommon: it holds a value that is of no exact JSON type, or nests deeper than ``depth``.
    """
    kind = type(container)
    if kind is not dict and kind is not list and kind is not tuple:
        raise _Uncommon
    size = 2 * len(container)
    if kind is dict:
        for key in container:
            if type(key) is not str:
                raise _Uncommon
            size += len(key)
        container = container.values()
    for value in container:
        kind = type(value)
        if kind is str:
            size += len(value)
        elif kind in _ATOMS:
            pass
        elif kind is float:
            if value - value != 0:  # true of infinities and NaN
                raise _Uncommon
        elif depth:
            size += _weigh(value, depth - 1)
        else:
            raise _Uncommon
    return size


def _encode_uncommon(fields: Mapping[str, Any], limit_bytes: int | None) -> bytes:
    try:
        return _ENCODER.encode(_Plain(_actor(fields), limit_bytes).copy(fields, "", DEEPEST))
    except _Refused as refused:
        raise UnencodablePayload(_actor(fields), refused.path, refused.fact, refused.remedy) from None
    except RecursionError:
        raise UnencodablePayload(_actor(fields), "", "is nested too deep for where it is sent from") from None


def _decode_foreign(body: bytes) -> dict[str, Any]:
    try:
        # NaN and infinities become floats, and are refused with their path below.
        read = json.loads(str(body, "utf-8"), object_pairs_hook=_object, parse_constant=float)
        fields = _Plain().copy(read, "", DEEPEST)
    except _Refused as refused:
        raise UnreadablePayload(refused.path, refused.fact) from None
    except UnicodeDecodeError as error:
        raise UnreadablePayload(f"byte {error.start}", "is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise UnreadablePayload(f"character {error.pos}", f"is not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise UnreadablePayload("", "is nested too deep, or has a number of too many digits") from None
    if not isinstance(fields, dict):
        raise UnreadablePayload("", f"is {kind_of(fields)}, not an object")
    return fields


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    repeated = _Repeated(found)
    keys = [key for key, _ in pairs]
    repeated.key = next(key for key in keys if keys.count(key) > 1)
    return repeated


class _Plain:
    """Copies a value into JSON's own types, and tracks its path."""

    def __init__(self, actor: str = "", limit_bytes: int | None = None) -> None:
        self._actor, self._limit_bytes, self._least_bytes = actor, limit_bytes, 0

    def copy(self, value: Any, path: str, depth: int) -> Any:
        """Return the copy; ``_Refused`` when JSON has no equal value, ``PayloadTooLarge`` when it exceeds the limit."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int):
            return _whole(value, path)
        if isinstance(value, float):
            if not math.isfinite(value):
                raise _Refused(path, f"is {float(value)!r}, which JSON does not have")
            return float(value)
        if not isinstance(value, (dict, list, tuple)):
            fact = f"is {kind_of(value)}, which JSON does not have"
            raise _Refused(path, fact, expression_for(value))
        if depth < 0:
            raise _Refused(_cut(path, 2 * SHOWN_KEY), f"is nested deeper than {DEEPEST} levels")
        self._add(2 * len(value))
        if isinstance(value, dict):
            return self._mapping(value, path, depth)
        return [self.copy(item, f"{path}[{at}]", depth - 1) for at, item in enumerate(value)]

    def _mapping(self, value: Mapping[Any, Any], path: str, depth: int) -> dict[str, Any]:
        if isinstance(value, _Repeated):
            raise _Refused(_below(path, value.key), "is there twice")
        copied: dict[str, Any] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise _Refused(path, f"has a key that is {kind_of(key)}; keys are text")
            plain = self._text(key, f"{path}[…]")
            if plain in copied:
                raise _Refused(_below(path, plain), "is there twice")
            copied[plain] = self.copy(item, _below(path, plain), depth - 1)
        return copied

    def _text(self, value: str, path: str) -> str:
        self._add(len(value))
        plain = str.__str__(value)  # the text of an enumeration's member is its value here
        try:
            plain.encode()
        except UnicodeEncodeError as error:
            raise _Refused(path, f"has a lone surrogate at character {error.start}") from None
        return plain

    def _add(self, least_bytes: int) -> None:
        self._least_bytes += least_bytes
        if self._limit_bytes is not None and self._least_bytes > self._limit_bytes:
            raise PayloadTooLarge(self._actor, self._least_bytes, self._limit_bytes)


def refused_part(value: Any, path: str) -> tuple[str, str, str]:
    """Return the first part of a value that JSON has no equal of: its path, the fact, an expression for it."""
    try:
        _Plain().copy(value, path, DEEPEST)
    except _Refused as refused:
        return refused.path, refused.fact, refused.remedy
    except RecursionError:  # below a deep stack, before the walk is as deep as a value may be
        return path, "is nested too deep", ""
    return path, "cannot be written as JSON", ""


def _whole(value: int, path: str) -> int:
    plain = int.__int__(value)
    try:
        str(plain)
    except ValueError:
        raise _Refused(path, "is a number of too many digits") from None
    return plain


def _below(path: str, key: str) -> str:
    shown = _cut(key)
    return f"{path}[{shown!r}]" if path else shown


def _actor(fields: Mapping[str, Any]) -> str:
    return str(fields.get("actor", "?"))


def _warn(actor_name: str, size_bytes: int) -> None:
    if actor_name in _warned:
        return
    _warned.add(actor_name)
    logger.warning(
        "actor %s: a message of %d bytes, over %d; store what is large and send its name (said once for each actor)",
        actor_name, size_bytes, WARN_BYTES,
    )  # fmt: skip
