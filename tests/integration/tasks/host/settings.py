"""The project on our backend."""

from __future__ import annotations

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.tasks.host.topology import YARD

INSTALLED_APPS = [
    *(app for app in PROJECT_APPS if not app.startswith("apps.product.")),
    "django_tasks",
    "tests.integration.tasks.host",
]
DRAMATIQ_BROKER = {"BROKER": "apps.platform.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.chaos.yard.urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
TASKS = {"default": {"BACKEND": "apps.platform.tasks.SwitchyardBackend"}}
