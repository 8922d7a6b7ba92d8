"""The small yard in its small form: one pool of four slots."""

from __future__ import annotations

from dataclasses import replace

from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.settings import YARD

SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD.small(slots=4))
