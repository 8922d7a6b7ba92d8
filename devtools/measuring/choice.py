"""Which of several pools to take, by what was measured of them."""

from __future__ import annotations

from collections.abc import Sequence

from devtools.measuring.run import Figures

# As fast as the fastest: a single run here differs by as much from the next.
AS_FAST = 0.9


def choose(figures: Sequence[Figures]) -> Figures | None:
    """Return the pool with the least memory among those that are as fast as the fastest, within a tenth.

    One in which tasks failed is not taken, because what fails early looks fast; ``None`` when they failed in all.
    """
    sound = [one for one in figures if not one.failed]
    if not sound:
        return None
    best = max(one.tasks_per_s for one in sound)
    return min((one for one in sound if one.tasks_per_s >= AS_FAST * best), key=lambda one: one.memory_mb)
