"""What of a message a person may see: arguments by name, those that its actor hides left out."""

from __future__ import annotations

import inspect
import math
import re
from typing import Any

import dramatiq
from dramatiq.errors import ActorNotFound

HIDDEN = "(hidden)"
SECRET_NAME = re.compile(r"passw|secret|token|authori[sz]ation|api_?key|credential|cookie", re.IGNORECASE)
LONGEST_TEXT = 4_000
DEEPEST = 20


def readable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a JSON value that may be stored and shown.

    Arguments that the actor lists in ``redact``, and all whose name is that of a secret, read ``(hidden)``. Of an
    actor that this process does not know nobody can say what it hides, so every argument is hidden. Characters that
    PostgreSQL cannot store are escaped.
    """
    actor_name = str(message.get("actor_name", ""))
    arguments = _arguments(actor_name, message.get("args") or (), message.get("kwargs") or {})
    options = {key: value for key, value in (message.get("options") or {}).items() if key not in ("traceback",)}
    return {"actor": actor_name, "arguments": _clean(arguments, 0), "options": _clean(options, 0)}


def clean_text(text: str) -> str:
    """Return a text without what UTF-8 or PostgreSQL refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _arguments(actor_name: str, args: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        actor = dramatiq.get_broker().get_actor(actor_name)
    except ActorNotFound:
        names: list[str] = []
        hidden: set[str] | None = None
    else:
        names = list(inspect.signature(actor.fn).parameters)
        hidden = set(actor.options.get("redact") or ())
    named = {names[at] if at < len(names) else f"argument {at + 1}": value for at, value in enumerate(args)}
    named |= {str(key): value for key, value in kwargs.items()}
    return {name: HIDDEN if hidden is None or name in hidden else value for name, value in named.items()}


def _clean(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return "(nested too deep)"
    if isinstance(value, dict):
        return {clean_text(str(key)): _clean_member(str(key), item, depth) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, str):
        shown = value if len(value) <= LONGEST_TEXT else f"{value[:LONGEST_TEXT]}… ({len(value)} characters)"
        return clean_text(shown)
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _clean_member(name: str, value: Any, depth: int) -> Any:
    return HIDDEN if SECRET_NAME.search(name) else _clean(value, depth + 1)
