"""The small yard with hard limits of 3 s, but for a queue that is served beside the others."""

from __future__ import annotations

from dataclasses import replace

from broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import YARD as SMALL

YARD = Yard(
    queues=tuple(
        queue if queue.name == "slow" else replace(queue, objective_ms=1_000, soft_limit_ms=2_000, hard_limit_ms=3_000)
        for queue in SMALL.queues
    ),
    pools=tuple(
        replace(pool, queues=(*pool.queues, "slow")) if pool.name in ("urgent", "webhook") else pool
        for pool in SMALL.pools
    ),
)
