"""Values that jobs are found by, as they are stored: arguments by name, and tags."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from apps.platform.database_text import storable

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
