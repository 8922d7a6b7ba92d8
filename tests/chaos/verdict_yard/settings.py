"""The project without its products, on the yard of the situations. ``VERDICT_HOST`` is another machine's name."""

from __future__ import annotations

import os
import socket
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.chaos.verdict_yard.yard import YARD as YARD

if OTHER_HOST := os.environ.get("VERDICT_HOST"):
    socket.gethostname = lambda: OTHER_HOST

INSTALLED_APPS = [*(app for app in PROJECT_APPS if not app.startswith("apps.product.")), "tests.chaos.verdict_yard"]
DRAMATIQ_BROKER = {"BROKER": "apps.platform.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.chaos.yard.urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
