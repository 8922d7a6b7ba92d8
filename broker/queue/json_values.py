"""Expressions that turn common Python values into JSON's, for the error that refuses such a value."""

from __future__ import annotations

import datetime
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


def expression_for(value: Any) -> str:
    """Return an expression with ``{}`` for the value, or "" when none is known.

    Models of Django are recognised by ``pk`` and ``_meta``, its lazy texts by their base class's name. A lazy object,
    such as ``request.user``, is loaded.
    """
    kind = type(value)
    if hasattr(kind, "_meta") and hasattr(kind, "pk"):
        return "{}.pk"
    if kind.__name__ == "SimpleLazyObject":  # request.user; its class is the model's only once it is loaded
        return "{}.pk" if hasattr(value, "pk") else "str({})"
    if any(base.__name__ == "Promise" for base in kind.__mro__):
        return "str({})"
    if any(base.__name__ == "QuerySet" for base in kind.__mro__):
        return 'list({}.values_list("pk", flat=True))'
    for types, expression in _BY_TYPE:
        if isinstance(value, types):
            return expression
    if is_dataclass(value):
        return "dataclasses.asdict({})"
    return "list({})" if hasattr(kind, "__next__") or kind.__name__ in ("dict_keys", "dict_values", "range") else ""
