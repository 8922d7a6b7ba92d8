"""Readable copies of message payloads: arguments by name, secrets hidden."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import dramatiq
from dramatiq.actor import Actor

from switchyard.database import storable
from switchyard.middleware.arguments import signature_of
from switchyard.middleware.redaction import HIDDEN, SECRET_NAME, redacted

LONGEST_TEXT = 4_000
DEEPEST = 20
NUMBERED = "argument "
# The end of a text that is shown cut.
CUT = re.compile(r"… \(\d+ characters\)$")


def readable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a JSON value that may be stored and shown.

    Hides the arguments in ``redact`` (all of an unknown actor) and every value named like a secret, at any depth.
    """
    actor = dramatiq.get_broker().actors.get(str(message["actor_name"]))
    shown = redacted(actor, message)
    arguments = by_name(actor, shown)
    options = {name: value for name, value in shown["options"].items() if name != "traceback"}
    return {"actor": message["actor_name"], "arguments": json_value(arguments), "options": json_value(options)}


def shown_arguments(actor_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a message by name, those hidden that its actor redacts or whose name is a secret's."""
    message = {"actor_name": actor_name, "args": list(args), "kwargs": dict(kwargs), "options": {}}
    found: dict[str, Any] = readable(message)["arguments"]
    return found


def by_name(actor: Actor[..., Any] | None, message: dict[str, Any]) -> dict[str, Any]:
    """Return a message's arguments by name; ``argument 3`` is the name of one that has a place only."""
    names = places_of(actor)
    return {**{name_at(names, place): value for place, value in enumerate(message["args"])}, **message["kwargs"]}


def places_of(actor: Actor[..., Any] | None) -> list[str]:
    """Return the names of the parameters that an actor takes by place."""
    parameters = () if actor is None else signature_of(actor.fn).parameters.values()
    return [each.name for each in parameters if each.kind not in (each.KEYWORD_ONLY, each.VAR_KEYWORD)]


def name_at(names: list[str], place: int) -> str:
    return names[place] if place < len(names) else f"{NUMBERED}{place + 1}"


def json_value(value: Any, depth: int = 0) -> Any:
    """Return a value that JSON and PostgreSQL can store: long texts cut, deep nesting and secrets replaced."""
    if depth > DEEPEST:
        return "(nested too deep)"
    if isinstance(value, dict):
        return {storable(str(key)): _json_member(str(key), item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item, depth + 1) for item in value]
    if isinstance(value, str):
        shown = value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}… ({len(value)} characters)"
        return storable(shown)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _json_member(name: str, value: Any, depth: int) -> Any:
    return HIDDEN if SECRET_NAME.search(name) else json_value(value, depth + 1)
