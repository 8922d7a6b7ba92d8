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
    """Return the JSON form of a value; ``TypeError``, ``ValueError`` or ``RecursionError`` when it has none."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_base)


def leaves(value: Any) -> Any:
    """Return a value of an annotated type as dicts and lists, with dates and the like as Python has them."""
    return msgspec.to_builtins(value, builtin_types=_LEAVES, str_keys=True, enc_hook=_base)


def from_json(kind: type, value: Any) -> Any:
    """Return a value of a type that msgspec does not know: a member of Django's choices, or any object.

    Raises ``ValueError`` when it is no member.
    """
    return kind(value) if issubclass(kind, Enum) else value


def lost_key(sent: Any, read: Any) -> str | None:
    """Return the first key of a sent ``dict`` that the value which was read from it has no field for."""
    if isinstance(sent, (list, tuple)) and isinstance(read, (list, tuple)):
        pairs = zip(sent, read, strict=False)
        return next((key for pair in pairs if (key := lost_key(*pair)) is not None), None)
    if not isinstance(sent, dict):
        return None
    fields = _by_key(read)
    if fields is None:  # a dict of any keys, which may be read as dates or numbers: as many come out
        return lost_key(list(sent.values()), list(read.values())) if isinstance(read, dict) else None
    for name, item in sent.items():
        if name not in fields:
            return name if isinstance(name, str) else None
        if (key := lost_key(item, fields[name])) is not None:
            return key
    return None


def _by_key(read: Any) -> dict[str, Any] | None:
    """Return the values of a structure's fields by their names in JSON; ``None`` for what is no structure."""
    if isinstance(read, msgspec.Struct):
        tag = read.__struct_config__.tag_field
        names = zip(read.__struct_encode_fields__, read.__struct_fields__, strict=True)
        return {written: getattr(read, name, None) for written, name in names} | ({tag: None} if tag else {})
    if (fields := _fields_of(read)) is not None:
        return {name: getattr(read, name, None) for name in fields}
    # A TypedDict is read as a dict; any other dict whose keys are text has all that was sent.
    return read if isinstance(read, dict) and all(isinstance(key, str) for key in read) else None


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


def is_same(value: Any, read: Any) -> bool:
    """Return whether a value that was read from JSON is the one that was sent."""
    if isinstance(value, datetime):
        is_equal = isinstance(read, datetime) and value.replace(tzinfo=None) == read.replace(tzinfo=None)
        return is_equal and value.utcoffset() == read.utcoffset()  # == says no in the hour that a zone repeats
    if isinstance(value, Decimal):
        return isinstance(read, Decimal) and str(value) == str(read)  # not a number is unequal to itself
    if isinstance(value, (list, tuple)) and isinstance(read, (list, tuple)):
        return all(is_same(*pair) for pair in zip_longest(value, read, fillvalue=_ABSENT))
    if isinstance(value, dict) and isinstance(read, dict):
        pairs = zip_longest(value.items(), read.items(), fillvalue=(_ABSENT, _ABSENT))
        return all(_is_same_key(key, other) and is_same(item, its) for (key, item), (other, its) in pairs)
    if isinstance(value, time) and isinstance(read, time) and (value.tzinfo is None) != (read.tzinfo is None):
        return False  # a zone whose offset depends on the day has none to write
    if (names := _fields_of(value)) is not None:
        return type(read) is type(value) and all(
            is_same(getattr(value, name, _ABSENT), getattr(read, name, _ABSENT)) for name in names
        )
    if type(value) in (str, int, float, bool) and read is not _ABSENT:
        return True  # JSON itself: reading it has compared it with the annotation
    kinds = (set, frozenset) if isinstance(read, (set, frozenset)) else (bytes, bytearray)
    if isinstance(read, kinds):
        return isinstance(value, kinds) and bool(value == read)  # the annotation says which of both comes out
    return bool(isinstance(value, (str, int, date, time, timedelta, type(read))) and value == read)


def _is_same_key(key: Any, read: Any) -> bool:
    # JSON has no numbers as keys: one that comes out as text is another key.
    return bool(key == read) if type(key) in (int, float) else is_same(key, read)


def _fields_of(value: Any) -> tuple[str, ...] | None:
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if is_dataclass(kind):
        return tuple(kind.__dataclass_fields__)
    attributes = getattr(kind, "__attrs_attrs__", None)
    return None if attributes is None else tuple(each.name for each in attributes)


def is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and is_json(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(is_json(item) for item in value)
    return isinstance(value, _SCALARS)
