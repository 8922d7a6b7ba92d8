"""How much is harmed, and what: drawn from a seed, so that a run can be had again."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Literal

Act = Literal["kill", "cut", "twice"]
ACTS: tuple[Act, ...] = ("kill", "cut", "twice")

RATE = re.compile(r"(\d+)/([smh])")
SECONDS = {"s": 1, "m": 60, "h": 3_600}


@dataclass(frozen=True, slots=True)
class Plan:
    """Acts at random times, so many a second on average.

    Args:
        seed: The same one draws the same acts at the same distances.
    """

    per_s: float
    seed: int

    def draws(self) -> random.Random:
        """Return what draws acts, victims and pauses."""
        return random.Random(self.seed)  # noqa: S311  no secret


def read_rate(words: str) -> float:
    """Return acts per second from ``6/m``, ``2/s`` or ``10/h``.

    Raises:
        ValueError: it is none of these, or none at all.
    """
    found = RATE.fullmatch(words)
    if found is None or int(found[1]) < 1:
        raise ValueError(f"{words!r} is no rate; say how often something is harmed, for example 6/m, 2/s or 10/h")
    return int(found[1]) / SECONDS[found[2]]
