"""Places in code, as ``file:line``, for messages about what is written there."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dramatiq import GenericActor


def place_of(function: Callable[..., Any]) -> str:
    """Return the file and line of the first decorator of a function, or of an actor's class; "" without Python code."""
    if isinstance(function, GenericActor):
        function = type(function)
    code = getattr(inspect.unwrap(function), "__code__", None)
    if code is not None:
        return place(code.co_filename, code.co_firstlineno)
    with contextlib.suppress(OSError, TypeError):  # of no file, or neither function nor class
        return place(inspect.getfile(function), inspect.getsourcelines(function)[1])
    return ""


def place(file: str, line: int) -> str:
    """Return a place as an editor opens it: relative to the working directory for a file below it."""
    path = Path(file)
    with contextlib.suppress(ValueError, OSError):  # elsewhere, or the working directory is gone
        path = path.relative_to(Path.cwd())
    return f"{path}:{line}"
