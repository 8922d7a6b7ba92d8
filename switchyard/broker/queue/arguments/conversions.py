"""Remedies for a value that is of another type than its annotation: an expression that converts it, or a text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Final
from uuid import UUID

import msgspec

from switchyard.broker.queue.arguments.annotations import parts_of

Conversion = tuple[type | tuple[type, ...], str, Callable[[Any], Any]]

# Of each annotation: types of values, the expression with ``{}`` for the value, and what it does. In order: a datetime
# is a date as well.
_CONVERSIONS: Final[dict[type, tuple[Conversion, ...]]] = {
    msgspec.inspect.DateTimeType: (
        (str, "datetime.fromisoformat({})", datetime.fromisoformat),
        ((int, float), "datetime.fromtimestamp({}, tz=UTC)", lambda value: datetime.fromtimestamp(value, tz=UTC)),
        (date, "datetime.combine({}, time(), tzinfo=UTC)", lambda value: datetime.combine(value, time(), tzinfo=UTC)),
    ),
    msgspec.inspect.DateType: (
        (str, "datetime.fromisoformat({}).date()", datetime.fromisoformat),
        (datetime, "{}.date()", datetime.date),
    ),
    msgspec.inspect.TimeType: (
        (str, "time.fromisoformat({})", time.fromisoformat),
        (datetime, "{}.time()", datetime.time),
    ),
    msgspec.inspect.TimeDeltaType: (
        ((int, float), "timedelta(seconds={})", lambda value: timedelta(seconds=value)),
        (str, "timedelta(seconds=float({}))", lambda value: timedelta(seconds=float(value))),
    ),
    msgspec.inspect.DecimalType: ((str, "Decimal({})", Decimal),),
    msgspec.inspect.UUIDType: ((str, "UUID({})", UUID), (bytes, "UUID(bytes={})", lambda value: UUID(bytes=value))),
    msgspec.inspect.BytesType: ((str, "{}.encode()", str.encode),),
    msgspec.inspect.ByteArrayType: ((str, "{}.encode()", str.encode),),
    msgspec.inspect.IntType: ((str, "int({})", int),),
    msgspec.inspect.FloatType: ((str, "float({})", float),),
    msgspec.inspect.StrType: ((int, "str({})", str), (float, "str({})", str)),
}
# Of each annotation whose values are text in JSON: what it is called, and such a text.
_TEXTS: Final[dict[type, tuple[str, str]]] = {
    msgspec.inspect.DateTimeType: ("a datetime", "2026-05-01T12:00:00+02:00"),
    msgspec.inspect.DateType: ("a date", "2026-05-01"),
    msgspec.inspect.TimeType: ("a time", "09:30:00"),
    msgspec.inspect.TimeDeltaType: ("a timedelta", "PT300S"),
    msgspec.inspect.DecimalType: ("a Decimal", "9.90"),
    msgspec.inspect.UUIDType: ("a UUID", "6f2c8a4e-1b0d-4c57-9d0a-3e5b7c1f2a90"),
}
_MOST_MEMBERS: Final = 10


def conversion_of(annotation: Any, value: Any) -> str:
    """Return what to send for a value that does not fit an annotation, "" when that is not known.

    ``{}`` stands for the value, which is never shown. An expression is one that converts this very value.
    """
    infos = [part for part in parts_of(annotation) if not isinstance(part, msgspec.inspect.NoneType)]
    if len(infos) != 1 or isinstance(value, bool):
        return ""
    [info] = infos
    known = _CONVERSIONS.get(type(info), ())
    found = [how for types, how, convert in known if isinstance(value, types) and _succeeds(convert, value)]
    if isinstance(value, str) and type(info) in _TEXTS:
        name, text = _TEXTS[type(info)]
        return f"{found[0] if found else name}, or text such as {text}"
    if found:
        return found[0]
    members = _members(info)
    return f"one of {', '.join(map(repr, members))}" if members else ""


def _succeeds(convert: Callable[[Any], Any], value: Any) -> bool:
    try:
        convert(value)
    except (ValueError, TypeError, OverflowError, OSError, InvalidOperation):
        return False
    return True


def _members(info: Any) -> list[Any]:
    """Return the values of an enum's members, none where they are too many to read."""
    kind = getattr(info, "cls", None)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        return []
    found = [member.value for member in kind]
    return found if len(found) <= _MOST_MEMBERS else []
