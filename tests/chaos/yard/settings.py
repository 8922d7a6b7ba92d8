"""The project without its products, on a yard of :mod:`tests.chaos.yard.yards`."""

import os
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.chaos.yard.yards import YARDS
from tests.library_apps import LIBRARY_APPS

YARD = YARDS[os.environ.get("CHAOS_YARD", "load")]

INSTALLED_APPS = [*LIBRARY_APPS, "tests.chaos.yard"]
DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
