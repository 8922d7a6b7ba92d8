"""Cases: each sends its messages, and returns a function that reads what came of them once all have ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Case = Callable[[], Callable[[], Any]]
CASES: dict[str, Case] = {}


def case(send: Case) -> Case:
    """Register a case under its function's name."""
    CASES[send.__name__] = send
    return send
