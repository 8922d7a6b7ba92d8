"""Arguments of jobs as pages, API and commands show them: by the names of the parameters, secret ones hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dramatiq
from dramatiq.actor import Actor

from middleware.arguments import signature_of
from middleware.redaction import HIDDEN, SECRET_NAME, redacted

LONGEST_EXCERPT = 80


def shown_arguments(actor_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a message by name, without those that its actor redacts or whose name is a secret's.

    Of an actor that this code does not have every argument is hidden, and those by place have numbers for names.
    """
    actor = dramatiq.get_broker().actors.get(actor_name)
    payload = redacted(actor, {"args": list(args), "kwargs": dict(kwargs)})
    found = dict(zip(_names(actor, len(args)), payload["args"], strict=True)) | payload["kwargs"]
    return {name: HIDDEN if SECRET_NAME.search(name) else value for name, value in found.items()}


def stored_arguments(actor_name: str, text: str) -> dict[str, Any] | None:
    """Return the arguments in a row of the history, by name; ``None`` when they were cut, and are no JSON."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if found.keys() <= {"args", "kwargs"}:
        args, kwargs = found.get("args"), found.get("kwargs")
        return shown_arguments(
            actor_name, args if isinstance(args, list) else [], kwargs if isinstance(kwargs, dict) else {}
        )
    return found


def excerpt(arguments: Mapping[str, Any] | None, longest: int = LONGEST_EXCERPT) -> str:
    """Return arguments on one line: ``customer_id="acme", pages=3``; cut after ``longest`` characters."""
    text = ", ".join(f"{name}={_written(value)}" for name, value in (arguments or {}).items())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _written(value: Any) -> str:
    return HIDDEN if value == HIDDEN else json.dumps(value, ensure_ascii=False, default=str)


def _names(actor: Actor[..., Any] | None, count: int) -> list[str]:
    """Return the names of the first parameters; those of ``*args``, and of an unknown actor, are numbered."""
    names: list[str] = []
    for each in signature_of(actor.fn).parameters.values() if actor is not None else ():
        if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            names.append(each.name)
    return [*names[:count], *(f"argument {place + 1}" for place in range(len(names), count))]
