"""What of a message a person may see: arguments by name, those that its actor hides left out."""

from __future__ import annotations

import math
from typing import Any

import dramatiq

from middleware.arguments import signature_of
from middleware.redaction import HIDDEN, SECRET_NAME, redacted

LONGEST_TEXT = 4_000
DEEPEST = 20


def readable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message as a JSON value that may be stored and shown.

    Beside the arguments that its actor lists in ``redact`` (all of them for an unknown actor), whatever is named like
    a secret is hidden, at any depth. Characters that PostgreSQL cannot store are escaped.
    """
    actor = dramatiq.get_broker().actors.get(str(message["actor_name"]))
    names = [] if actor is None else list(signature_of(actor.fn).parameters)
    shown = redacted(actor, message)
    arguments = {
        names[place] if place < len(names) else f"argument {place + 1}": value
        for place, value in enumerate(shown["args"])
    }
    arguments |= shown["kwargs"]
    options = {name: value for name, value in shown["options"].items() if name != "traceback"}
    return {"actor": message["actor_name"], "arguments": _clean(arguments), "options": _clean(options)}


def clean_text(text: str) -> str:
    """Return a text without what UTF-8 or PostgreSQL refuse: lone surrogates and NUL."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def _clean(value: Any, depth: int = 0) -> Any:
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
