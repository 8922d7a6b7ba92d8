"""The project without its products, on a yard of the queue that benchmarks use."""

import os
from dataclasses import replace

from benchmarks.peers.on_dramatiq import LANES
from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from switchyard.broker.topology import Pool, Queue, Yard

SMALL = int(os.environ.get("BENCH_SMALL", "0"))
SHORT_MS, LONG_MS = 80, 300_000  # promises; one alone outside of a small yard

YARD = Yard(
    queues=tuple(
        Queue(
            lane,
            objective_ms=LONG_MS if SMALL and lane != LANES[0] else SHORT_MS,
            soft_limit_ms=60_000,
            hard_limit_ms=90_000,
        )
        for lane in LANES
    ),
    pools=(
        Pool("bench", "threads", LANES, processes=1, slots=int(os.environ.get("BENCH_SLOTS", "8"))),
        Pool("retries", "threads", (), processes=1, slots=1, shared_retries=True),
    ),
)
INSTALLED_APPS = [
    *(app for app in PROJECT_APPS if not app.startswith("apps.")),
    "benchmarks.supervised_yard",
]
DRAMATIQ_BROKER = {"BROKER": "benchmarks.supervised_yard.broker.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "benchmarks.supervised_yard.urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD.small(SMALL) if SMALL else YARD)
