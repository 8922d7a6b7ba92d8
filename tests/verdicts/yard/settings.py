"""The project without its products, on the yard of the situations. ``VERDICT_HOST`` is
another machine's name, ``VERDICT_CLOCK_S`` how far its clock is ahead."""

import os
import socket
import time
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.library_apps import LIBRARY_APPS
from tests.verdicts.yard.yard import YARD as YARD

if AHEAD_S := float(os.environ.get("VERDICT_CLOCK_S", "0")):
    clock, clock_ns = time.time, time.time_ns
    time.time = lambda: clock() + AHEAD_S
    time.time_ns = lambda: clock_ns() + int(AHEAD_S * 1e9)

if OTHER_HOST := os.environ.get("VERDICT_HOST"):
    socket.gethostname = lambda: OTHER_HOST

INSTALLED_APPS = [*LIBRARY_APPS, "tests.verdicts.yard"]
DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
