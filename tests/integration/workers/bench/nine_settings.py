"""The project with all its products, and nine pools: its own eight and one more."""

from __future__ import annotations

from broker.topology import Pool, Queue, Yard
from project.settings import *  # noqa: F403
from project.settings import YARD as OWN

YARD = Yard(
    queues=(*OWN.queues, Queue("ninth", 1_000, 60_000, 90_000)),
    pools=(*OWN.pools, Pool("ninth", "threads", ("ninth",), processes=1, slots=8)),
)
