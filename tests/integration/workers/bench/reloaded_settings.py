"""The small yard with an app whose code changes; ``PYTHONPATH`` says where it is."""

from __future__ import annotations

from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import INSTALLED_APPS as BENCH_APPS

INSTALLED_APPS = [*BENCH_APPS, "changing"]
