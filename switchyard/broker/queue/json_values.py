"""Values that JSON does not have: their place, and expressions that turn them into JSON's, for errors about them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Set
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

# In order: a datetime is a date as well. ``{}`` stands for the value.
_BY_TYPE: Final[tuple[tuple[Any, str], ...]] = (
    ((datetime.date, datetime.time), "{}.isoformat()"),
    (datetime.timedelta, "{}.total_seconds()"),
    ((Decimal, UUID, PurePath), "str({})"),
    (Enum, "{}.value"),
    (Set, "sorted({})"),
    ((bytes, bytearray, memoryview), "base64.b64encode({}).decode()"),
)

DEEPEST_PATH: Final = 20
SHOWN_KEY: Final = 40


def expression_for(value: Any) -> str:
    """Return an expression with ``{}`` for the value, or "" when none is known."""
    for types, expression in _BY_TYPE:
        if isinstance(value, types):
            return expression
    return "dataclasses.asdict({})" if is_dataclass(value) else ""


def refused_part(value: Any, path: str) -> tuple[str, str, str]:
    """Return the first part of a value that ``json.dumps`` refuses: its path, the fact, an expression for it."""
    holders: set[int] = set()
    while True:
        holders.add(id(value))
        if isinstance(value, dict):
            keys = [key for key in value if not isinstance(key, (str, int, float, bool, type(None)))]
            if keys:
                return path, f"has a key that is {kind_of(keys[0])}; keys are text", ""
        elif not isinstance(value, (list, tuple)):
            return path, f"is {kind_of(value)}, which JSON does not have", expression_for(value)
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        inner = next(((key, part) for key, part in parts if id(part) in holders or not _is_json(part)), None)
        if inner is None:
            return path, "cannot be written as JSON", ""
        path, value = f"{path}[{_short(inner[0])}]", inner[1]
        if id(value) in holders:
            return path, "holds itself", ""
        if len(holders) > DEEPEST_PATH:
            return f"{path[:100]}…", "is nested too deep, or holds what JSON does not have", ""


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _short(key: Any) -> str:
    shown = repr(key)
    return shown if len(shown) <= SHOWN_KEY else f"{shown[:SHOWN_KEY]}…"


def kind_of(value: Any) -> str:
    """Return the type of a value with its article: ``an int``."""
    kind = type(value).__name__
    return f"{'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}"
