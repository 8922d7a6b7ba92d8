"""A yard without products: one pool of each kind, and a worker that is silent for 3 s counts as dead."""

from __future__ import annotations

from broker.topology import Pool, Queue, RetryPolicy, Yard
from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS

INSTALLED_APPS = [
    *(app for app in PROJECT_APPS if not app.startswith("apps.product.")),
    "tests.integration.workers.bench",
]
DRAMATIQ_BROKER = {"BROKER": "tests.integration.workers.bench.broker.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.integration.workers.bench.urls"
RETRY = RetryPolicy(max_retries=1, base_ms=10, cap_ms=10)

YARD = Yard(
    queues=(
        Queue("urgent", 80, 60_000, 90_000, retry=RETRY),
        Queue("slow", 1_000, 60_000, 90_000, retry=RETRY),
        Queue("webhook", 400, 60_000, 90_000, retry=RETRY),
    ),
    pools=(
        Pool("urgent", "threads", ("urgent",), processes=1, slots=4, prefetch=4),
        Pool("slow", "processes", ("slow",), processes=2, slots=1, prefetch=1, nice=10),
        Pool("webhook", "gevent", ("webhook",), processes=1, slots=8),
        Pool("retries", "threads", (), processes=1, slots=2, shared_retries=True),
    ),
)
