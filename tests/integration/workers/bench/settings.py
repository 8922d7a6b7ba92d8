"""The project without its products, on the small yard."""

from __future__ import annotations

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.yard import YARD as YARD
from tests.library_apps import LIBRARY_APPS

INSTALLED_APPS = [*LIBRARY_APPS, "tests.integration.workers.bench"]
DRAMATIQ_BROKER = {"BROKER": "tests.integration.workers.bench.broker.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
