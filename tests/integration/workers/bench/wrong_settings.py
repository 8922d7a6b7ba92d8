"""The same with two mistakes: a pool that consumes a dead list, and more slots than database connections."""

from __future__ import annotations

from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SOUND

YARD = Yard(
    queues=SOUND.queues,
    pools=(replace(SOUND.pools[0], queues=("urgent", "webhook-dead"), database_connections=2), *SOUND.pools[1:]),
)
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
