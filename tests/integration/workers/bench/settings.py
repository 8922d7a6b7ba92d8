"""The project without its products, on the small yard, or on the one and with the app that the environment names."""

import os
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.workers.bench.yard import YARDS
from tests.library_apps import LIBRARY_APPS

INSTALLED_APPS = [*LIBRARY_APPS, *os.environ.get("BENCH_APPS", "tests.integration.workers.bench").split()]
DRAMATIQ_BROKER = {"BROKER": "tests.integration.workers.bench.broker.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARDS[os.environ.get("BENCH_YARD", "small")])
