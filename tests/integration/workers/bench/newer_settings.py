"""The small yard with newer code."""

from __future__ import annotations

from tests.integration.workers.bench.settings import *  # noqa: F403
from tests.integration.workers.bench.settings import INSTALLED_APPS as OLDER_APPS

INSTALLED_APPS = [*(app for app in OLDER_APPS if not app.startswith("tests.")), "tests.integration.workers.newer"]
