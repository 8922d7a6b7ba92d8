"""Parameters of an actor as pages and commands show them: annotation, default, and whether their values are hidden."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from typing import Any

from dramatiq.actor import Actor

from switchyard.broker.queue.arguments.annotations import annotations_of, takes_none, takes_text
from switchyard.broker.queue.arguments.values import to_json
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.redaction import HIDDEN

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
        """Whether the JSON of some of its values is text: of ``str``, dates, numbers of exact size and the like."""
        return self.kind not in VARIADIC and takes_text(self.type)

    def is_text(self, written: str) -> bool:
        """Return whether a text without quotes stands for itself: all values are texts, and it is no ``null``."""
        is_only_text = self.kind not in VARIADIC and takes_text(self.type, only=True)
        return is_only_text and not (written == "null" and takes_none(self.type))

    @property
    def shown_name(self) -> str:
        """The name, with the stars of a variadic parameter."""
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return stars.get(self.kind, "") + self.name


def parameters_of(actor: Actor[..., Any]) -> tuple[ActorParameter, ...]:
    """Return an actor's parameters in the order of its signature."""
    hidden = redacted_names(actor)
    types = {each.name: each.type for each in annotations_of(actor.fn)}
    return tuple(
        ActorParameter(
            name=each.name,
            kind=each.kind,
            annotation="" if each.annotation is each.empty else _written(each.annotation),
            type=types.get(each.name, Any),
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


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _as_json(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return ""
    try:
        return json.dumps(to_json(default), ensure_ascii=False)
    except (TypeError, ValueError, NotImplementedError):
        return ""
