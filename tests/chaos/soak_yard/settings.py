"""The project without its products, on the yard of :mod:`tests.chaos.soak_yard`."""

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.chaos.soak_yard import YARD as YARD
from tests.library_apps import LIBRARY_APPS

INSTALLED_APPS = [*LIBRARY_APPS, "tests.chaos.soak_yard"]
DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
