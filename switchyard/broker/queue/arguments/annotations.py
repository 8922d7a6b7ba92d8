"""Annotations of an actor's parameters: resolved one by one, and sorted by what JSON does to their values."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final

import msgspec
from dramatiq.generic import GenericActor

_JSON: Final = (
    msgspec.inspect.AnyType,
    msgspec.inspect.NoneType,
    msgspec.inspect.BoolType,
    msgspec.inspect.IntType,
    msgspec.inspect.FloatType,
    msgspec.inspect.StrType,
    msgspec.inspect.LiteralType,
)
_TEXT: Final = (
    msgspec.inspect.StrType,
    msgspec.inspect.BytesType,
    msgspec.inspect.ByteArrayType,
    msgspec.inspect.DateTimeType,
    msgspec.inspect.TimeType,
    msgspec.inspect.DateType,
    msgspec.inspect.TimeDeltaType,
    msgspec.inspect.UUIDType,
    msgspec.inspect.DecimalType,
)


class Annotation(msgspec.Struct, frozen=True):
    """Annotation of one parameter.

    Args:
        written: The annotation as the code has it; "" for none.
        type: The resolved annotation, ``None`` added where it is the default; ``Any`` for none, and for one that
            msgspec cannot compare with a value.
        is_typed: JSON has other values than Python: they are converted where they are sent and before they run.
        fault: Why the annotation counts as none, "" otherwise.
    """

    name: str
    kind: Any
    written: str = ""
    type: Any = Any
    is_typed: bool = False
    fault: str = ""


def annotations_of(function: Callable[..., Any]) -> tuple[Annotation, ...]:
    """Return the annotations of a function's parameters, in the order of its signature.

    Each is resolved by itself: one that cannot be resolved counts as none, and hides no other.
    """
    callee = callee_of(function)
    names = getattr(inspect.unwrap(callee), "__globals__", {})
    return tuple(_annotation(each, names) for each in inspect.signature(callee).parameters.values())


def callee_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that gets an actor's arguments: of a class-based actor, its ``perform``."""
    if isinstance(function, GenericActor) and type(function).__call__ is GenericActor.__call__:
        return function.perform
    return function


def takes_text(annotation: Any, *, only: bool = False) -> bool:
    """Return whether the JSON of an annotation's values may be text, or with ``only`` always is, but for ``None``."""
    found = [_is_text(part) for part in parts_of(annotation) if not isinstance(part, msgspec.inspect.NoneType)]
    return all(found) and bool(found) if only else any(found)


def takes_none(annotation: Any) -> bool:
    return any(isinstance(part, msgspec.inspect.NoneType) for part in parts_of(annotation))


def parts_of(annotation: Any) -> tuple[Any, ...]:
    """Return the descriptions of a union's types, or of the one type."""
    info = msgspec.inspect.type_info(annotation)
    return getattr(info, "types", (info,))


def _annotation(parameter: inspect.Parameter, names: dict[str, Any]) -> Annotation:
    if parameter.annotation is parameter.empty:
        return Annotation(parameter.name, parameter.kind)
    written = parameter.annotation
    written = written if isinstance(written, str) else inspect.formatannotation(written)
    try:
        holder = SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
        resolved = typing.get_type_hints(holder, globalns=names, include_extras=True)[parameter.name]
    except Exception as error:  # noqa: BLE001  an annotation is code: what it raises is not known
        fault = f"its names cannot be resolved, {type(error).__name__}: {error}"
        return Annotation(parameter.name, parameter.kind, written, fault=fault)
    if parameter.default is None:
        resolved = typing.Optional[resolved]  # noqa: UP045  the resolved annotation may be a text
    try:
        msgspec.json.Decoder(resolved)  # refuses what type_info lets pass
        is_typed = not _is_plain(msgspec.inspect.type_info(resolved), set())
    except _Foreign:
        return Annotation(parameter.name, parameter.kind, written)
    except Exception as error:  # noqa: BLE001  as above
        return Annotation(parameter.name, parameter.kind, written, fault=str(error).partition(" - type")[0])
    return Annotation(parameter.name, parameter.kind, written, resolved, is_typed)


class _Foreign(Exception):
    """A class that has no JSON form."""


def _is_plain(info: Any, seen: set[int]) -> bool:
    """Return whether JSON has the very values of a type. Raises ``_Foreign`` when a part of it has no JSON form."""
    if id(info) in seen:
        return True
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType):
        if issubclass(info.cls, Enum) and all(isinstance(member.value, (str, int)) for member in info.cls):
            return False  # Django's choices, whose class has another metaclass than msgspec knows
        if info.cls is object:
            return True
        raise _Foreign
    single = (getattr(info, name, None) for name in ("item_type", "key_type", "value_type"))
    more = (*getattr(info, "item_types", ()), *getattr(info, "types", ()))
    fields = (field.type for field in getattr(info, "fields", ()))
    parts = [_is_plain(part, seen) for part in (*single, *more, *fields) if part is not None]
    if isinstance(info, msgspec.inspect.DictType):
        return all(parts) and isinstance(info.key_type, (msgspec.inspect.StrType, msgspec.inspect.AnyType))
    plain = (*_JSON, msgspec.inspect.ListType, msgspec.inspect.UnionType, msgspec.inspect.TypedDictType)
    return isinstance(info, plain) and all(parts)


def _is_text(info: Any) -> bool:
    if isinstance(info, (msgspec.inspect.EnumType, msgspec.inspect.CustomType)) and issubclass(info.cls, Enum):
        return any(isinstance(member.value, str) for member in info.cls)
    if isinstance(info, msgspec.inspect.LiteralType):
        return any(isinstance(value, str) for value in info.values)
    return isinstance(info, _TEXT)
