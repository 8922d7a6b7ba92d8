"""Arguments of a job that a person sends: read from JSON and checked against the actor's signature and annotations.

And the form of a page that takes them, a field for each.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import msgspec
from django import forms
from dramatiq.actor import Actor

from switchyard.broker.errors import ArgumentsRefused
from switchyard.broker.queue.arguments import (
    annotations_of,
    as_written,
    from_json,
    lost_key,
    takes_none,
    takes_text,
    to_json,
)
from switchyard.middleware.arguments import misfit, require_named, signature_of
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
    def value_type(self) -> Any:
        """Type of the parameter's value in a call by names: ``*args`` is a list there, ``**kwargs`` an object."""
        if self.kind is inspect.Parameter.VAR_POSITIONAL:
            return list[self.type]  # type: ignore[name-defined]
        return dict[str, self.type] if self.kind is inspect.Parameter.VAR_KEYWORD else self.type  # type: ignore[name-defined]

    @property
    def shown_name(self) -> str:
        """The name, with the stars of a variadic parameter."""
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return stars.get(self.kind, "") + self.name


def parameters_of(actor: Actor[..., Any]) -> tuple[ActorParameter, ...]:
    """Return an actor's parameters in the order of its signature."""
    hidden = redacted_names(actor)
    return tuple(
        ActorParameter(
            name=each.name,
            kind=each.kind,
            annotation=found.written,
            type=found.type,
            default="" if each.name in hidden else _as_json(each.default),
            required=each.default is each.empty and each.kind not in VARIADIC,
            redacted=each.name in hidden,
        )
        for each, found in zip(signature_of(actor.fn).parameters.values(), annotations_of(actor.fn), strict=True)
    )


def signature_text(actor: Actor[..., Any]) -> str:
    """Return an actor's name and signature, without the defaults of redacted parameters."""
    signature, hidden, module = signature_of(actor.fn), redacted_names(actor), actor.fn.__module__
    shown = signature.replace(
        parameters=[_shown(each, module, hidden=each.name in hidden) for each in signature.parameters.values()],
        return_annotation=_verbatim(signature.return_annotation, module),
    )
    return f"{actor.actor_name}{shown}"


def redacted_names(actor: Actor[..., Any]) -> frozenset[str]:
    return frozenset(actor.options.get("redact", ()))


class _Verbatim:
    """Text that a signature shows without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _shown(parameter: inspect.Parameter, module: str, *, hidden: bool) -> inspect.Parameter:
    if hidden and parameter.default is not parameter.empty:
        parameter = parameter.replace(default=_Verbatim(HIDDEN))
    return parameter.replace(annotation=_verbatim(parameter.annotation, module))


def _verbatim(annotation: Any, module: str) -> Any:
    return annotation if annotation is inspect.Parameter.empty else _Verbatim(as_written(annotation, module))


def _as_json(default: Any) -> str:
    if default is inspect.Parameter.empty:
        return ""
    try:
        return json.dumps(to_json(default), ensure_ascii=False)
    except (TypeError, ValueError, NotImplementedError):
        return ""


# Index of faults that belong to the call and to no parameter.
WHOLE_CALL = ""
# A text that begins like this was meant as JSON.
QUOTED = '"[{'
KINDS = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "an object"}
KINDS[type(None)] = "null"


@dataclass(frozen=True, slots=True)
class CallArguments:
    """Arguments of one call, which fit the actor."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: the text is no JSON; the message says where, and never quotes the text.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_whole)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        remedy = 'texts stand in quotes: "text"' if error.pos == 0 else "compare brackets, quotes and commas"
        raise ValueError(f"no JSON from character {error.pos + 1} on; {remedy}") from None
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text; write the character itself") from None
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    return value


def from_fields(actor: Actor[..., Any], fields: Mapping[str, str]) -> CallArguments:
    """Return the arguments of a form with one text for each parameter; an empty one leaves the default.

    A text is JSON; where the parameter takes text, quotes are not needed.

    Raises:
        ArgumentsRefused: with a fault for each parameter that is missing or does not fit.
    """
    faults: dict[str, str] = {}
    values: dict[str, Any] = {}
    for parameter in parameters_of(actor):
        text = fields.get(parameter.name, "").strip()
        if not text or text == parameter.default:
            continue
        try:
            values[parameter.name] = read_value(parameter, text)
        except ValueError as error:
            faults[parameter.name] = str(error)
    return from_values(actor, values, faults)


def from_values(
    actor: Actor[..., Any], values: Mapping[str, Any], known: Mapping[str, str] = MappingProxyType({})
) -> CallArguments:
    """Return the arguments of a call by the names of parameters: of ``*args`` a list, of ``**kwargs`` an object.

    Args:
        known: Faults of parameters that have no value.

    Raises:
        ArgumentsRefused: with a fault for each name that is missing, unknown, or whose value does not fit.
    """
    faults: dict[str, str] = {}
    parameters = parameters_of(actor)
    for each in parameters:
        missing = "required: write a JSON value" if each.required else ""
        found = _fault(each, values[each.name]) if each.name in values else missing
        if fault := known.get(each.name) or found:
            faults[each.name] = fault
    names = [each.name for each in parameters]
    for name in values.keys() - set(names):
        faults[name] = f"the actor has no such argument, it has {', '.join(names) or 'none'}"
    if faults:
        raise _refused(actor, faults)
    call = _placed(actor, values)
    return checked(actor, call.args, call.kwargs)


def checked(actor: Actor[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> CallArguments:
    """Return the arguments of a call that fit the actor's signature and annotations.

    Raises:
        ArgumentsRefused: with a fault for each parameter that does not fit.
        ArgumentMismatch: ``kwargs`` is no ``dict``.
    """
    require_named(actor, kwargs)
    if (wrong := misfit(actor.fn, len(args), kwargs.keys())) is not None:
        raise _refused(actor, {WHOLE_CALL: wrong})
    bound = signature_of(actor.fn).bind(*args, **kwargs).arguments
    faults = {
        parameter.name: fault
        for parameter in parameters_of(actor)
        if parameter.name in bound and (fault := _fault(parameter, bound[parameter.name]))
    }
    if faults:
        raise _refused(actor, faults)
    return CallArguments(tuple(args), kwargs)


def _refused(actor: Actor[..., Any], faults: dict[str, str]) -> ArgumentsRefused:
    text = "; ".join(f"{name}: {fault}" if name else fault for name, fault in faults.items())
    return ArgumentsRefused(f"actor {actor.actor_name}: the arguments do not fit: {text}", faults)


def read_value(parameter: ActorParameter, text: str) -> Any:
    """Return the value that was written for a parameter: JSON, or a text without quotes where it takes text.

    Raises:
        ValueError: the text is no JSON, and the parameter takes no text.
    """
    takes_one = parameter.kind not in VARIADIC
    is_null = text == "null" and takes_none(parameter.type)
    if takes_one and takes_text(parameter.type, only=True) and not is_null and not text.startswith('"'):
        return text
    try:
        return read_json(text)
    except ValueError:
        if takes_one and takes_text(parameter.type) and text[0] not in QUOTED:
            return text
        raise


def _placed(actor: Actor[..., Any], values: Mapping[str, Any]) -> CallArguments:
    """Return the values as a call: by name wherever the signature lets it."""
    parameters = signature_of(actor.fn).parameters.values()
    more = next((values.get(each.name) for each in parameters if each.kind is each.VAR_POSITIONAL), None)
    extra = next((values.get(each.name) for each in parameters if each.kind is each.VAR_KEYWORD), None) or {}
    by_place = (inspect.Parameter.POSITIONAL_ONLY, *([inspect.Parameter.POSITIONAL_OR_KEYWORD] if more else []))
    placed = [each for each in parameters if each.kind in by_place]
    last = len(placed) if more else max((i + 1 for i, each in enumerate(placed) if each.name in values), default=0)
    args = [values.get(each.name, each.default) for each in placed[:last]]
    taken = {each.name for each in placed}
    named = [each.name for each in parameters if each.kind not in VARIADIC and each.name not in taken]
    kwargs = {name: values[name] for name in named if name in values}
    return CallArguments((*args, *(more or ())), {**extra, **kwargs})


def _fault(parameter: ActorParameter, value: Any) -> str:
    """Return why a value does not fit its parameter, "" if it does; never with the value."""
    try:
        read = msgspec.convert(value, parameter.value_type, str_keys=True, dec_hook=from_json)
    except msgspec.ValidationError as error:
        place = str(error).partition(" - at ")[2].strip("`").removeprefix("$")
        fact = f"at {place} it is another value" if place else f"this is {KINDS.get(type(value), 'another value')}"
        return f"expects {parameter.annotation}; {fact}"
    key = lost_key(value, read)
    return "" if key is None else f"expects {parameter.annotation}; it has no field {key!r:.60}"


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError("a number has too many digits; write it as text") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write a number or null")


PREFIX = "argument-"
LONGEST_TEXT = 100_000


class CallForm(forms.Form):
    """Form with the parameters of one actor, then its own fields; ``call`` holds the arguments once it is valid.

    The fields of redacted parameters are password fields, which are never filled in again.
    """

    takes_redacted = True

    def __init__(self, actor: Actor[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.actor, self.call = actor, CallArguments((), {})
        self.parameters = [each for each in parameters_of(actor) if self.takes_redacted or not each.redacted]
        self.fields = {PREFIX + each.name: _field(each) for each in self.parameters} | self.fields

    @property
    def argument_fields(self) -> list[tuple[ActorParameter, forms.BoundField]]:
        """Parameters with their fields, for the template ``switchyard_jobs/argument_fields.html``."""
        return [(each, self[PREFIX + each.name]) for each in self.parameters]

    def clean(self) -> dict[str, Any]:
        """Check the arguments against signature and annotations; add each fault to its field."""
        data: dict[str, Any] = super().clean() or self.cleaned_data
        try:
            self.call = from_fields(
                self.actor, {each.name: data.get(PREFIX + each.name) or "" for each in self.parameters}
            )
        except ArgumentsRefused as error:
            for name, fault in error.faults.items():
                is_field = PREFIX + name in self.fields
                text = fault if is_field or not name else f"{name}: {fault}"
                self.add_error(PREFIX + name if is_field else None, text)
        return data


def _field(parameter: ActorParameter) -> forms.Field:
    css = {"class": "sy-input sy-code", "autocomplete": "off", "spellcheck": "false"}
    widget: forms.Widget = forms.TextInput(attrs=css)
    if parameter.redacted:
        widget = forms.PasswordInput(attrs=css | {"autocomplete": "new-password"}, render_value=False)
    # Not ``required``: the browser would refuse what clean() explains, and "" means the default.
    return forms.CharField(
        label=parameter.shown_name, required=False, initial=parameter.default, max_length=LONGEST_TEXT, strip=True,
        widget=widget,
    )  # fmt: skip
