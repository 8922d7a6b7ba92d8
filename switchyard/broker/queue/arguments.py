"""Types of an actor's arguments: compared when a message is sent, JSON on its way, the annotated types before it runs.

A parameter without an annotation, or with one that counts as none, has any value. Where JSON has the annotation's own
values (text, numbers, lists and dicts of these), a value is compared when it is sent, and nothing is converted.
"""

import functools
import inspect
import threading
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from itertools import zip_longest
from types import SimpleNamespace
from typing import Any, Final
from uuid import UUID

import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import MessageProxy
from dramatiq.generic import GenericActor
from dramatiq.message import Message
from msgspec import inspect as meta

from switchyard.broker.queue.json_body import expression_for

_SCALARS: Final = (str, int, float, type(None))  # bool is an int
_LEAVES: Final = (datetime, date, time, timedelta, Decimal, UUID, bytes)
_ABSENT: Final = object()
# Classes, each with what makes a value of it of one of a subclass. In order: a datetime is a date as well.
_BASES: Final[tuple[tuple[type, Callable[[Any], Any]], ...]] = (
    (Enum, lambda value: value.value),
    (datetime, lambda value: datetime.combine(value.date(), value.timetz())),
    (date, lambda value: date(value.year, value.month, value.day)),
    (timedelta, lambda value: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)


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
    for kind, made in _BASES:
        if isinstance(value, kind):
            return made(value)
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
        # JSON has no numbers as keys: one that comes out as text is another key.
        return all(
            (bool(key == other) if type(key) in (int, float) else is_same(key, other)) and is_same(item, its)
            for (key, item), (other, its) in pairs
        )
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


_JSON: Final = (
    meta.AnyType, meta.NoneType, meta.BoolType, meta.IntType, meta.FloatType, meta.StrType, meta.LiteralType,
)  # fmt: skip
_TEXT: Final = (
    meta.StrType, meta.BytesType, meta.ByteArrayType, meta.DateTimeType, meta.TimeType, meta.DateType,
    meta.TimeDeltaType, meta.UUIDType, meta.DecimalType,
)  # fmt: skip


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
    found = [_is_text(part) for part in parts_of(annotation) if not isinstance(part, meta.NoneType)]
    return all(found) and bool(found) if only else any(found)


def takes_none(annotation: Any) -> bool:
    return any(isinstance(part, meta.NoneType) for part in parts_of(annotation))


def parts_of(annotation: Any) -> tuple[Any, ...]:
    """Return the descriptions of a union's types, or of the one type."""
    info = meta.type_info(annotation)
    return getattr(info, "types", (info,))


def as_written(annotation: Any, module: str) -> str:
    """Return an annotation as the code of that module has it: its own classes go without its name."""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation).replace(f"{module}.", "")


def _annotation(parameter: inspect.Parameter, names: dict[str, Any]) -> Annotation:
    if parameter.annotation is parameter.empty:
        return Annotation(parameter.name, parameter.kind)
    written = as_written(parameter.annotation, names.get("__name__", ""))
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
        is_typed = not _is_plain(meta.type_info(resolved), set())
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
    if isinstance(info, meta.CustomType):
        if issubclass(info.cls, Enum) and all(isinstance(member.value, (str, int)) for member in info.cls):
            return False  # Django's choices, whose class has another metaclass than msgspec knows
        if info.cls is object:
            return True
        raise _Foreign
    single = (getattr(info, name, None) for name in ("item_type", "key_type", "value_type"))
    more = (*getattr(info, "item_types", ()), *getattr(info, "types", ()))
    fields = (field.type for field in getattr(info, "fields", ()))
    parts = [_is_plain(part, seen) for part in (*single, *more, *fields) if part is not None]
    if isinstance(info, meta.DictType):
        return all(parts) and isinstance(info.key_type, (meta.StrType, meta.AnyType))
    plain = (*_JSON, meta.ListType, meta.UnionType, meta.TypedDictType)
    return isinstance(info, plain) and all(parts)


def _is_text(info: Any) -> bool:
    if isinstance(info, (meta.EnumType, meta.CustomType)) and issubclass(info.cls, Enum):
        return any(isinstance(member.value, str) for member in info.cls)
    if isinstance(info, meta.LiteralType):
        return any(isinstance(value, str) for value in info.values)
    return isinstance(info, _TEXT)


Actors = Mapping[str, Actor[..., Any]]
# Options that hold further messages: the next step of a pipeline, the callbacks of a group.
_STEPS: Final = ("pipe_target", "group_completion_callbacks")
# How msgspec begins the place of a dict's key.
_KEY: Final = "key` in `"


class Misfit(Exception):
    """A value that does not fit the annotation of its parameter. Its text is the fact, never the value."""


class ArgumentType:
    """Converter of the values of one parameter."""

    def __init__(self, annotation: Annotation) -> None:
        self.name, self.written, self.is_typed = annotation.name, annotation.written, annotation.is_typed
        # msgspec prepares the fields of a structure once, any other type at each conversion.
        self._box = msgspec.defstruct("Argument", [("value", annotation.type)], array_like=True)
        msgspec.json.Decoder(self._box)  # prepares it here, and not in two threads at once

    def read(self, value: Any, *, strict: bool = True) -> Any:
        """Return the value of a JSON form; a value that is of the type already stays as it is.

        Raises:
            msgspec.ValidationError: it does not fit.
        """
        box: Any = msgspec.convert((value,), self._box, strict=strict, str_keys=True, dec_hook=from_json)
        return box.value

    def check(self, value: Any, path: str) -> None:
        """Refuse, by a ``Misfit`` with parameter and type, a value that would not come out as it goes in."""
        try:
            if not self.is_typed:
                self.read(value)
                return
            read = self.read(to_json(value))
            if is_same(value, read):
                return
            if (key := lost_key(value, read)) is not None:
                raise Misfit(f"{self._expects(path)}; it has no field {key!r:.60}")
            if not is_json(value):
                raise Misfit(f"{self._expects(path)}; this {type(value).__name__} would come out as another value")
        except msgspec.ValidationError as error:
            raise Misfit(self._fact(value, path, str(error))) from None
        except (TypeError, ValueError, NotImplementedError, RecursionError) as error:
            raise Misfit(f"{self._expects(path)}; {_held(value, str(error))}{self._remedy(value, path)}") from None
        except Misfit:
            raise
        except Exception as error:
            raise Misfit(f"{self._expects(path)}; its own code raised {type(error).__name__}") from error

    def receive(self, value: Any, path: str) -> Any:
        """Return the value of what a message carries; of another sender also one that nearly fits, such as ``"5"``.

        Raises:
            Misfit: it cannot be converted.
        """
        fault = ""
        for strict in (True, False):
            try:
                return self.read(value, strict=strict)
            except msgspec.ValidationError as error:
                fault = str(error)
            except Exception as error:
                # A hook's own exception would only be logged, and the actor called with JSON.
                raise Misfit(f"{self._expects(path)}; its own code raised {type(error).__name__}") from error
        raise Misfit(self._fact(value, path, fault))

    def _expects(self, path: str) -> str:
        return f"argument {path} expects {self.written}"

    def _fact(self, value: Any, path: str, fault: str) -> str:
        _, found, place = fault.rpartition(" - at `")
        if place.startswith(_KEY):
            place = place.removeprefix(_KEY).removesuffix("`").removeprefix("$[0]")
            return f"{self._expects(path)}; a key of {path}{place} does not fit"
        place = place.removesuffix("`").removeprefix("$[0]").removeprefix("$")
        if found and place:
            return f"{self._expects(path)}; {path}{place} does not fit"
        return f"{self._expects(path)}; this {type(value).__name__} does not fit{self._remedy(value, path)}"

    def _remedy(self, value: Any, path: str) -> str:
        expression = "" if self.is_typed else expression_for(value)
        return f"; send {expression.replace('{}', path)}" if expression else ""


class ArgumentTypes:
    """Types of the arguments of one actor's function.

    Attributes:
        faults: Annotations that count as none by the parameter's name, and why.
        is_typed: Some arguments are converted.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        found = annotations_of(function)
        self.faults = {each.name: (each.written, each.fault) for each in found if each.fault}
        self.is_typed = any(each.is_typed for each in found)
        by_place = [each for each in found if each.kind in (each.kind.POSITIONAL_ONLY, each.kind.POSITIONAL_OR_KEYWORD)]
        by_name = [each for each in found if each.kind in (each.kind.POSITIONAL_OR_KEYWORD, each.kind.KEYWORD_ONLY)]
        self._places = [_of(each) for each in by_place]
        self._names = {each.name: _of(each) for each in by_name}
        self._more = next((_of(each) for each in found if each.kind is each.kind.VAR_POSITIONAL), None)
        self._others = next((_of(each) for each in found if each.kind is each.kind.VAR_KEYWORD), None)
        self._has_any = not any((*self._places, *self._names.values(), self._more, self._others))
        self._needs_each = self.is_typed or self._more is not None or self._others is not None
        parts = [("args", _struct(by_place, by_place=True)), ("kwargs", _struct(by_name, by_place=False))]
        self._call = msgspec.defstruct("Call", parts, array_like=True, gc=False)
        msgspec.json.Decoder(self._call)  # as above

    def fit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the values of a call are known to fit. All others need :meth:`misfit`, which is slower."""
        if self._has_any:
            return True
        if self._needs_each:
            return False
        try:
            msgspec.convert((args, kwargs), self._call)
        except (msgspec.ValidationError, RecursionError):
            return False
        return True

    def misfit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
        """Return the first fault of a call's values, ``None`` when they fit."""
        try:
            for place, value in enumerate(args):
                if (parameter := self._at(place)) is not None:
                    parameter.check(value, self._path(place))
            for name, value in kwargs.items():
                if (parameter := self._names.get(name, self._others)) is not None:
                    parameter.check(value, name)
        except Misfit as fault:
            return str(fault)
        return None

    def sent(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the JSON forms of a call's values. A value that has none stays, for the encoding to refuse."""
        return self._converted(args, kwargs, lambda parameter, value, path: _sent(value))

    def received(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the values of a call, from their JSON forms or as they are; ``Misfit`` when one cannot be made."""
        return self._converted(args, kwargs, lambda parameter, value, path: parameter.receive(value, path))

    def _converted(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], convert: Callable[[ArgumentType, Any, str], Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if not self.is_typed:
            return tuple(args), dict(kwargs)
        by_place = [(self._at(place), value, self._path(place)) for place, value in enumerate(args)]
        by_name = [(self._names.get(name, self._others), value, name) for name, value in kwargs.items()]
        found = [
            convert(parameter, value, path) if parameter is not None and parameter.is_typed else value
            for parameter, value, path in (*by_place, *by_name)
        ]
        return tuple(found[: len(args)]), dict(zip(kwargs, found[len(args) :], strict=True))

    def _at(self, place: int) -> ArgumentType | None:
        return self._places[place] if place < len(self._places) else self._more

    def _path(self, place: int) -> str:
        parameter, first = self._at(place), len(self._places)
        if parameter is None:
            return ""
        return parameter.name if place < first else f"{parameter.name}[{place - first}]"


# msgspec prepares a class that a type names once, in the class: two threads that do so at once crash the process.
_making = threading.Lock()


@functools.cache
def argument_types(function: Callable[..., Any]) -> ArgumentTypes:
    """Return the types of a function's arguments; made at its first message, when all its annotations' names exist."""
    with _making:
        return ArgumentTypes(function)


def in_json(message: Message[Any], actors: Actors) -> Message[Any]:
    """Return a message with its arguments, and those of the steps that follow it, as JSON; itself if they are."""
    actor, options = actors.get(message.actor_name), message.options
    types = None if actor is None else argument_types(actor.fn)
    is_followed = "pipe_target" in options or "group_completion_callbacks" in options  # has_steps costs a call
    if not is_followed and (types is None or not types.is_typed):
        return message
    args, kwargs = types.sent(message.args, message.kwargs) if types is not None else (message.args, message.kwargs)
    options = _steps_in_json(options, actors) if is_followed else options
    return Message(
        message.queue_name, message.actor_name, args, kwargs, options, message.message_id, message.message_timestamp
    )


def has_steps(options: Mapping[str, Any]) -> bool:
    return "pipe_target" in options or "group_completion_callbacks" in options


def in_message(message: Message[Any] | MessageProxy) -> Message[Any]:
    """Return the message inside a proxy, whose arguments are JSON while those of the proxy have types."""
    return message._message if isinstance(message, MessageProxy) else message


def steps_of(options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the messages that a message's options hold, and those that these hold."""
    for name in _STEPS:
        value = options.get(name)
        for step in filter(_is_step, value if isinstance(value, list) else [value]):
            yield step
            yield from steps_of(step["options"])


def _steps_in_json(options: Mapping[str, Any], actors: Actors) -> dict[str, Any]:
    found = dict(options)
    for name in _STEPS:
        if isinstance(options.get(name), list):
            found[name] = [_step_in_json(step, actors) for step in options[name]]
        elif name in options:
            found[name] = _step_in_json(options[name], actors)
    return found


def _step_in_json(step: Any, actors: Actors) -> Any:
    if not _is_step(step):
        return step
    found = {**step, "options": _steps_in_json(step["options"], actors)}
    actor = actors.get(step["actor_name"])
    if actor is not None and argument_types(actor.fn).is_typed:
        found["args"], found["kwargs"] = argument_types(actor.fn).sent(step["args"], step["kwargs"])
    return found


def _is_step(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {"actor_name", "args", "kwargs", "options"}


def _sent(value: Any) -> Any:
    try:
        return to_json(value)
    except (TypeError, ValueError, NotImplementedError, RecursionError):
        return value


def _of(annotation: Annotation) -> ArgumentType | None:
    return None if annotation.type is Any else ArgumentType(annotation)


def _struct(annotations: Sequence[Annotation], *, by_place: bool) -> type[msgspec.Struct]:
    """Return a structure with the types of some parameters, each of which may be absent."""
    fields = [(f"field_{place}", each.type, None) for place, each in enumerate(annotations)]
    names = {f"field_{place}": each.name for place, each in enumerate(annotations)}
    # Thrown away at once, so the collector need not know it.
    return msgspec.defstruct("Arguments", fields, array_like=by_place, rename=None if by_place else names, gc=False)


def _held(value: Any, error: str) -> str:
    kind, found = type(value).__name__, error.removeprefix("Encoding objects of type ").removesuffix(" is unsupported")
    return f"this {kind} " + (
        "has no JSON form" if found in (kind, error) else f"holds {found}, which has no JSON form"
    )
