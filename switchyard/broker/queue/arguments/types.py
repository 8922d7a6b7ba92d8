"""Types of an actor's arguments: compared when a message is sent, JSON on its way, the annotated types before it runs.

A parameter without an annotation, or with one that counts as none, has any value. Where JSON has the annotation's own
values (text, numbers, lists and dicts of these), a value is compared when it is sent, and nothing is converted.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from dramatiq.actor import Actor
from dramatiq.broker import MessageProxy
from dramatiq.message import Message

from switchyard.broker.queue.arguments.annotations import Annotation, annotations_of
from switchyard.broker.queue.arguments.values import from_json, is_json, is_same, lost_key, to_json
from switchyard.broker.queue.json_values import expression_for

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
        self._type = annotation.type
        self._box = msgspec.defstruct("Argument", [("value", annotation.type)], array_like=True)

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
        with contextlib.suppress(msgspec.ValidationError):
            return self._received(value, path, strict=True)
        try:
            return self._received(value, path, strict=False)
        except msgspec.ValidationError as error:
            raise Misfit(self._fact(value, path, str(error))) from None

    def _received(self, value: Any, path: str, *, strict: bool) -> Any:
        try:
            return self.read(value, strict=strict)
        except msgspec.ValidationError:
            raise
        except Exception as error:
            # A hook's own exception would only be logged, and the actor called with JSON.
            raise Misfit(f"{self._expects(path)}; its own code raised {type(error).__name__}") from error

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


@functools.cache
def argument_types(function: Callable[..., Any]) -> ArgumentTypes:
    """Return the types of a function's arguments; made at its first message, when all its annotations' names exist."""
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
        for step in _listed(options.get(name)):
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


def _listed(value: Any) -> list[Any]:
    return [step for step in (value if isinstance(value, list) else [value]) if _is_step(step)]


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
