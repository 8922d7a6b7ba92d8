"""The small yard with async and generic actors."""

from __future__ import annotations

from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import INSTALLED_APPS as BENCH_APPS

INSTALLED_APPS = [*BENCH_APPS, "tests.integration.workers.kinds"]
