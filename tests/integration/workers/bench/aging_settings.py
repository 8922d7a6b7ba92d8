"""The small yard with children that are replaced, by count and by memory, and a limit of their memory."""

from __future__ import annotations

from dataclasses import replace

from broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import YARD as SMALL

MB = 1_000_000
YARD = Yard(
    queues=SMALL.queues,
    pools=(
        replace(SMALL.pools[0], processes=2, recycle_after=50),
        replace(SMALL.pools[1], recycle_above_bytes=200 * MB, memory_limit_bytes=350 * MB),
        replace(SMALL.pools[2], slots=2, memory_limit_bytes=350 * MB),
        *SMALL.pools[3:],
    ),
)
