"""Values that jobs are found by, as they are stored: arguments by name, and tags."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import dramatiq

from switchyard.database_text import storable

LONGEST_VALUE: Final = 200
# Not a name that an argument can have.
TAG: Final = "#tag"


def search_text(value: Any) -> str | None:
    """Return a value as it is compared: text as it is, other scalars as JSON; ``None`` for what is no scalar.

    Of a longer text than 200 characters the digest is stored: it is found by its exact value all the same.
    """
    if value is None or not isinstance(value, str | int | float | bool):
        return None
    text = storable(value) if isinstance(value, str) else json.dumps(value)
    if len(text) <= LONGEST_VALUE:
        return text
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def searched_names(actor: str) -> tuple[str, ...]:
    """Return the names of arguments that an actor lists in ``search``; none of an actor that is unknown here."""
    declared = dramatiq.get_broker().actors.get(actor)
    return tuple(declared.options.get("search", ())) if declared is not None else ()


def why_none_found(argument: tuple[str, str] | None, actor: str = "") -> str:
    """Return why no ended job can be found by an argument: no actor, or not the one, lists it; empty when one does."""
    if argument is None:
        return ""
    name = argument[0]
    if any(name in searched_names(each) for each in ([actor] if actor else dramatiq.get_broker().actors)):
        return ""
    who = f"{actor} does not list" if actor else "no actor lists"
    return f'{who} {name} in search=("{name}",), so jobs that have ended are not found by it'
