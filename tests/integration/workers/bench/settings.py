"""The project without its products, on the small yard."""

from __future__ import annotations

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.yard import YARD as YARD

INSTALLED_APPS = [
    *(app for app in PROJECT_APPS if not app.startswith("apps.product.")),
    "tests.integration.workers.bench",
]
DRAMATIQ_BROKER = {"BROKER": "tests.integration.workers.bench.broker.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.integration.workers.bench.urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
