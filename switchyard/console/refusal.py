"""Refusal to start a process, with its exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

EX_CONFIG = 78


def refuse(*facts: str) -> NoReturn:
    """Print why the process does not start and exit 78 (EX_CONFIG)."""
    for fact in facts:
        sys.stderr.write(f"switchyard: refused to start: {fact}\n")
    sys.stderr.flush()
    raise SystemExit(EX_CONFIG)
