"""The small yard with actors that take arguments of every type."""

from __future__ import annotations

from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import INSTALLED_APPS as BENCH_APPS

INSTALLED_APPS = [*BENCH_APPS, "tests.integration.workers.typed"]
