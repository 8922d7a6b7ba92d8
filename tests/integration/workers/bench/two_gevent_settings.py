"""The small yard with its retries in greenlets as well: two gevent pools."""

from __future__ import annotations

from dataclasses import replace

from switchyard.broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD as SMALL

YARD = Yard(queues=SMALL.queues, pools=(*SMALL.pools[:3], replace(SMALL.pools[3], kind="gevent", slots=4)))
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
