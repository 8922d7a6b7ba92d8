"""The small yard whose children are killed as soon as they start: they may have one byte of memory."""

from __future__ import annotations

from dataclasses import replace

from broker.topology import Yard
from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import YARD as SMALL

YARD = Yard(queues=SMALL.queues, pools=(replace(SMALL.pools[0], memory_limit_bytes=1), *SMALL.pools[1:]))
