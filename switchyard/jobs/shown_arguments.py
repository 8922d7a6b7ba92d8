"""Arguments of jobs as pages, API and commands show them: by the names of the parameters, secret ones hidden."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from switchyard.middleware.redaction import HIDDEN
from switchyard.payload import readable

LONGEST_EXCERPT = 80


def shown_arguments(actor_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a message by name, those hidden that its actor redacts or whose name is a secret's."""
    message = {"actor_name": actor_name, "args": list(args), "kwargs": dict(kwargs), "options": {}}
    found: dict[str, Any] = readable(message)["arguments"]
    return found


def stored_arguments(text: str) -> dict[str, Any] | None:
    """Return the arguments in a row of the history, by name; ``None`` when they were cut, and are no JSON."""
    try:
        found = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def excerpt(arguments: Mapping[str, Any] | None, longest: int = LONGEST_EXCERPT) -> str:
    """Return arguments on one line: ``customer_id="acme", pages=3``; cut after ``longest`` characters."""
    text = ", ".join(f"{name}={written(value)}" for name, value in (arguments or {}).items())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def written(value: Any) -> str:
    """Return a value as JSON; a hidden one as its mark."""
    return HIDDEN if value == HIDDEN else json.dumps(value, ensure_ascii=False, default=str)
