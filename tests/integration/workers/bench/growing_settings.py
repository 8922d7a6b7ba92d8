"""The small yard with children that are replaced when they hold more memory than a little."""

from __future__ import annotations

from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SMALL

ABOVE_BYTES = 200_000_000
YARD = Yard(queues=SMALL.queues, pools=(replace(SMALL.pools[0], recycle_above_bytes=ABOVE_BYTES), *SMALL.pools[1:]))
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
