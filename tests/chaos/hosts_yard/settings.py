"""The project without its products, on the yard of :mod:`tests.chaos.hosts_yard`.

``CHAOS_CLOCK_S`` is how far the clock of the host is ahead. libfaketime sets it for all programs, see
:mod:`tests.chaos.faked_clock`; without libfaketime time_machine sets it here, for Python code alone.
"""

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import time_machine

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.chaos.hosts_yard import YARD as YARD
from tests.library_apps import LIBRARY_APPS

if (AHEAD_S := int(os.environ.get("CHAOS_CLOCK_S", "0"))) and "FAKETIME" not in os.environ:
    time_machine.travel(datetime.now(UTC) + timedelta(seconds=AHEAD_S), tick=True).start()

INSTALLED_APPS = [*LIBRARY_APPS, "tests.chaos.hosts_yard"]
DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
