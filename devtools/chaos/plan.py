"""Fault plan: how often faults are injected, and the seed that draws them, so that a run can be repeated."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

RATE = re.compile(r"(\d+)/([smh])")
SECONDS = {"s": 1, "m": 60, "h": 3_600}


@dataclass(frozen=True, slots=True)
class Plan:
    """Faults at random times.

    Args:
        per_s: Faults per second, on average.
        seed: Equal seeds draw the same faults at the same intervals.
    """

    per_s: float
    seed: int

    def draws(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311  no secret


def read_rate(text: str) -> float:
    """Return faults per second from ``6/m``, ``2/s`` or ``10/h``.

    Raises:
        ValueError: the text has another form, or its count is below 1.
    """
    found = RATE.fullmatch(text)
    if found is None or int(found[1]) < 1:
        raise ValueError(f"{text!r} is no rate; write the number of faults per unit, for example 6/m, 2/s or 10/h")
    return int(found[1]) / SECONDS[found[2]]
