"""The small yard with its children on one CPU, but for those of a pool."""

from __future__ import annotations

import os
from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SMALL

CPU = max(os.sched_getaffinity(0))
YARD = Yard(
    queues=SMALL.queues,
    pools=tuple(pool if pool.name == "retries" else replace(pool, cpus=(CPU,)) for pool in SMALL.pools),
)
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
