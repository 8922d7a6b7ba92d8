"""The project's settings and its own yard; ``OUTAGE_SPEED`` times as fast."""

import os
from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as DECLARED

INSTALLED_APPS = [*PROJECT_APPS, "tests.chaos.outage_yard"]
SWITCHYARD = replace(DECLARED, topology=replace(DECLARED.topology, retry_speed=int(os.environ["OUTAGE_SPEED"])))
