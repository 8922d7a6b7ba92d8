"""Parameters of an actor as pages and commands show them: annotation, default, and whether their values are hidden."""

from __future__ import annotations

import contextlib
import inspect
import json
import typing
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import msgspec
from dramatiq.actor import Actor

from middleware.arguments import signature_of
from middleware.redaction import HIDDEN

VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@dataclass(frozen=True, slots=True)
class ActorParameter:
    """One parameter of an actor.

    Args:
        annotation: The annotation as written; "" for none.
        type: The resolved annotation; ``Any`` for none, and for one that cannot be compared with JSON.
        default: The default as JSON; "" for none, for one that is no JSON, and for a redacted one.
        required: A call without the parameter is refused.
        redacted: Its values are never shown.
    """

    name: str
    kind: Any
    annotation: str
    type: Any
    default: str
    required: bool
    redacted: bool

    @property
    def takes_text(self) -> bool:
        """Whether its annotation is ``str``, a union with it, or a ``Literal`` of texts."""
        if self.kind in VARIADIC:
            return False
        return self.type is str or any(each is str or isinstance(each, str) for each in typing.get_args(self.type))

    @property
    def shown_name(self) -> str:
        """The name, with the stars of a variadic parameter."""
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return stars.get(self.kind, "") + self.name


def parameters_of(actor: Actor[..., Any]) -> tuple[ActorParameter, ...]:
    """Return an actor's parameters in the order of its signature."""
    hidden = redacted_names(actor)
    hints = _hints(actor)
    return tuple(
        ActorParameter(
            name=each.name,
            kind=each.kind,
            annotation="" if each.annotation is each.empty else _written(each.annotation),
            type=_comparable(hints.get(each.name, Any)),
            default="" if each.name in hidden else _as_json(each.default),
            required=each.default is each.empty and each.kind not in VARIADIC,
            redacted=each.name in hidden,
        )
        for each in signature_of(actor.fn).parameters.values()
    )


def signature_text(actor: Actor[..., Any]) -> str:
    """Return an actor's name and signature, without the defaults of redacted parameters."""
    signature, hidden = signature_of(actor.fn), redacted_names(actor)
    returned = signature.return_annotation
    shown = signature.replace(
        parameters=[_shown(each, hidden=each.name in hidden) for each in signature.parameters.values()],
        return_annotation=_Verbatim(returned) if isinstance(returned, str) else returned,
    )
    return f"{actor.actor_name}{shown}"


def redacted_names(actor: Actor[..., Any]) -> frozenset[str]:
    """Return the names of the arguments that an actor hides."""
    return frozenset(actor.options.get("redact", ()))


class _Verbatim:
    """Text that a signature shows without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown(parameter: inspect.Parameter, *, hidden: bool) -> inspect.Parameter:
    if hidden and parameter.default is not parameter.empty:
        parameter = parameter.replace(default=_Verbatim(HIDDEN))
    if isinstance(parameter.annotation, str):
        parameter = parameter.replace(annotation=_Verbatim(parameter.annotation))
    return parameter


def _hints(actor: Actor[..., Any]) -> dict[str, Any]:
    """Return the annotations that can be resolved, each by itself: one that cannot hides no other."""
    function = inspect.unwrap(actor.fn)
    names = getattr(function, "__globals__", {})
    found: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        # An annotation is code: what it raises when it is resolved is not known.
        with contextlib.suppress(Exception):
            found |= typing.get_type_hints(SimpleNamespace(__annotations__={name: annotation}), globalns=names)
    return found


def _comparable(annotation: Any) -> Any:
    """Return an annotation, or ``Any`` for one with classes that JSON has no values of."""
    try:
        return Any if _has_foreign(msgspec.inspect.type_info(annotation)) else annotation
    except (TypeError, RecursionError):
        return Any


def _has_foreign(info: Any) -> bool:
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    single = (getattr(info, name, None) for name in ("item_type", "key_type", "value_type"))
    parts = (*single, *getattr(info, "item_types", ()), *getattr(info, "types", ()))
    return any(_has_foreign(part) for part in parts if part is not None)


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _as_json(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return ""
    try:
        return json.dumps(default, ensure_ascii=False)
    except (TypeError, ValueError):
        return ""
