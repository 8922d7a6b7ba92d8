"""The project with all its products, and nine pools: its own eight and one more."""

from __future__ import annotations

from dataclasses import replace

from broker.topology import Pool, Queue, Yard
from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD

YARD = Yard(
    queues=(*OTHER_SWITCHYARD.topology.queues, Queue("ninth", 1_000, 60_000, 90_000)),
    pools=(*OTHER_SWITCHYARD.topology.pools, Pool("ninth", "threads", ("ninth",), processes=1, slots=8)),
)
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
