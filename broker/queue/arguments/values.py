"""Values of arguments: their JSON form, and whether a form gives back the value that was sent."""

from __future__ import annotations

from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import zip_longest
from typing import Any, Final
from uuid import UUID

import msgspec

_SCALARS: Final = (str, int, float, type(None))  # bool is an int
_LEAVES: Final = (datetime, date, time, timedelta, Decimal, UUID, bytes)
_ABSENT: Final = object()


def to_json(value: Any) -> Any:
    """Return the JSON form of a value.

    Raises:
        TypeError: a value in it has none. ValueError, RecursionError: it cannot be written.
    """
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_base)


def leaves(value: Any) -> Any:
    """Return a value of an annotated type as dicts and lists, with dates and the like as Python has them."""
    return msgspec.to_builtins(value, builtin_types=_LEAVES, str_keys=True, enc_hook=_base)


def from_json(kind: type, value: Any) -> Any:
    """Return a value of a type that msgspec does not know: a member of Django's choices, or any object.

    Raises:
        ValueError: it is no member.
    """
    return kind(value) if issubclass(kind, Enum) else value


def returns(value: Any, read: Any) -> bool:
    """Return whether a value that was read from JSON is the one that was sent, or the sent one was JSON itself."""
    return _is_same(value, read) or _is_json(value)


def _base(value: Any) -> Any:
    """Return a value of a subclass, such as those of libraries that stop the clock, as one of its base class."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return datetime.combine(value.date(), value.timetz())
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if isinstance(value, timedelta):
        return timedelta(value.days, value.seconds, value.microseconds)
    if isinstance(value, Decimal):
        return Decimal(value)
    if isinstance(value, UUID):
        return UUID(int=value.int)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise NotImplementedError(f"Encoding objects of type {type(value).__name__} is unsupported")


def _is_same(value: Any, read: Any) -> bool:
    if isinstance(value, datetime):
        is_same = isinstance(read, datetime) and value.replace(tzinfo=None) == read.replace(tzinfo=None)
        return is_same and value.utcoffset() == read.utcoffset()  # == says no in the hour that a zone repeats
    if isinstance(value, Decimal):
        return isinstance(read, Decimal) and str(value) == str(read)  # not a number is unequal to itself
    if isinstance(value, (list, tuple)) and isinstance(read, (list, tuple)):
        return all(_is_same(*pair) for pair in zip_longest(value, read, fillvalue=_ABSENT))
    if isinstance(value, dict) and isinstance(read, dict):
        pairs = zip_longest(value.items(), read.items(), fillvalue=(_ABSENT, _ABSENT))
        return all(_is_same_key(key, other) and _is_same(item, its) for (key, item), (other, its) in pairs)
    if isinstance(value, time) and isinstance(read, time) and (value.tzinfo is None) != (read.tzinfo is None):
        return False  # a zone whose offset depends on the day has none to write
    if (names := _fields_of(value)) is not None:
        return type(read) is type(value) and all(
            _is_same(getattr(value, name, _ABSENT), getattr(read, name, _ABSENT)) for name in names
        )
    if type(value) in (str, int, float, bool) and read is not _ABSENT:
        return True  # JSON itself: reading it has compared it with the annotation
    return bool(isinstance(value, (str, int, date, time, timedelta, type(read))) and value == read)


def _is_same_key(key: Any, read: Any) -> bool:
    # JSON has no numbers as keys: one that comes out as text is another key.
    return bool(key == read) if type(key) in (int, float) else _is_same(key, read)


def _fields_of(value: Any) -> tuple[str, ...] | None:
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(kind):
        return tuple(kind.__dataclass_fields__)
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(each.name for each in attributes)


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_json(item) for item in value)
    return isinstance(value, _SCALARS)
