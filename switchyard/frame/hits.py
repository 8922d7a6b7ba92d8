"""Results of a search."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hit:
    """One result.

    Args:
        is_exact: The text is the whole name.
        is_id: The text is an id that nothing else has: the search leads there at once.
    """

    name: str
    address: str
    note: str = ""
    is_exact: bool = False
    is_id: bool = False


@dataclass(frozen=True, slots=True)
class HitGroup:
    """Results of one kind."""

    title: str
    hits: tuple[Hit, ...]
