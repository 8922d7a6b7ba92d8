"""The small yard with two gevent pools, and the app whose code changes."""

from __future__ import annotations

from tests.integration.workers.bench.two_gevent_settings import *  # noqa: F403
from tests.integration.workers.bench.two_gevent_settings import INSTALLED_APPS as BENCH_APPS

INSTALLED_APPS = [*BENCH_APPS, "changing"]
