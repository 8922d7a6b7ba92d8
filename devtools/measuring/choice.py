"""Choice of a pool by its measured figures."""

from __future__ import annotations

from collections.abc import Sequence

from devtools.measuring.run import Figures

# Share of the best rate that counts as equally fast: repeated runs differ by as much.
AS_FAST = 0.9


def choose(figures: Sequence[Figures]) -> Figures | None:
    """Return the pool with the least memory among those within a tenth of the best rate.

    Pools in which tasks failed are left out, because an early failure looks fast; ``None`` when tasks failed in all.
    """
    sound = [one for one in figures if not one.failed]
    if not sound:
        return None
    best = max(one.tasks_per_s for one in sound)
    return min((one for one in sound if one.tasks_per_s >= AS_FAST * best), key=lambda one: one.memory_mb)
