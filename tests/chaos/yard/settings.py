"""The project without its products, on a yard of :mod:`tests.chaos.yard.yards`."""

from __future__ import annotations

import os
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.chaos.yard.yards import YARDS

YARD = YARDS[os.environ.get("CHAOS_YARD", "load")]

INSTALLED_APPS = [*(app for app in PROJECT_APPS if not app.startswith("apps.product.")), "tests.chaos.yard"]
DRAMATIQ_BROKER = {"BROKER": "apps.platform.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.chaos.yard.urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
