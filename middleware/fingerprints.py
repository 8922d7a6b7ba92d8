"""Fingerprints: equal for failures with one cause, whatever their ids and line numbers, and for equal arguments."""

from __future__ import annotations

import hashlib
import json
import traceback
from pathlib import PurePath
from typing import Any

FRAMES = 5


def fingerprint(actor: str, exception: BaseException) -> str:
    """Return 16 hex digits of actor, exception class and the innermost frames (file and function)."""
    frames = traceback.extract_tb(exception.__traceback__)[-FRAMES:]
    parts = [actor, type(exception).__qualname__]
    parts += [f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def fingerprint_of(arguments: dict[str, Any]) -> str:
    """Return 16 hex digits of arguments (JSON values); equal ones have the same."""
    return hashlib.sha256(json.dumps(arguments, sort_keys=True, default=repr).encode()).hexdigest()[:16]
