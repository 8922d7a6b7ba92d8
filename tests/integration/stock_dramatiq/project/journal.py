"""What the actors did, in order, by the name of the case."""

from __future__ import annotations

from collections import defaultdict
from threading import Lock
from typing import Any

_entries: defaultdict[str, list[Any]] = defaultdict(list)
_lock = Lock()


def note(case: str, value: Any = None) -> int:
    """Note an event; return how many there are of its case."""
    with _lock:
        _entries[case].append(value)
        return len(_entries[case])


def of(case: str) -> list[Any]:
    return list(_entries[case])


def count(case: str) -> int:
    return len(_entries[case])
