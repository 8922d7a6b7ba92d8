"""Fingerprints: failures with one cause have one, whatever their ids, numbers and line numbers."""

from __future__ import annotations

import hashlib
import traceback
from pathlib import PurePath

FRAMES = 5


def fingerprint(actor: str, exception: BaseException) -> str:
    """Return 16 hex digits of actor, exception class and the innermost frames (file and function)."""
    frames = traceback.extract_tb(exception.__traceback__)[-FRAMES:]
    parts = [actor, type(exception).__qualname__]
    parts += [f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
