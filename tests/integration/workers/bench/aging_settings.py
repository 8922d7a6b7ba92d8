"""The small yard with children that are replaced after 50 messages."""

from __future__ import annotations

from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SMALL

YARD = Yard(queues=SMALL.queues, pools=(replace(SMALL.pools[0], processes=2, recycle_after=50), *SMALL.pools[1:]))
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
