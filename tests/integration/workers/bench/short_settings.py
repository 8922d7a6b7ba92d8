"""The small yard with hard limits of 2 s."""

from __future__ import annotations

from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SMALL

YARD = Yard(
    queues=tuple(replace(queue, soft_limit_ms=1_000, hard_limit_ms=2_000) for queue in SMALL.queues),
    pools=(replace(SMALL.pools[0], slots=1, prefetch=1), *SMALL.pools[1:]),
)
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
