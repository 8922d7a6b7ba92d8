"""This project's settings with neither unfold nor ninja: importing them fails, as where they are not installed."""

from __future__ import annotations

import sys

from project.settings import *  # noqa: F403

for absent in ("unfold", "ninja"):
    sys.modules[absent] = None  # type: ignore[assignment]

INSTALLED_APPS = [app for app in INSTALLED_APPS if app not in ("unfold", "ninja")]  # noqa: F405
ROOT_URLCONF = "tests.integration.console.stock_urls"
