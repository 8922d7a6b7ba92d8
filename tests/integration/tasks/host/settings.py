"""The project on our backend."""

from dataclasses import replace

from project.settings import *  # noqa: F403
from project.settings import SWITCHYARD as OTHER_SWITCHYARD
from tests.integration.tasks.host.topology import YARD
from tests.library_apps import LIBRARY_APPS

INSTALLED_APPS = [*LIBRARY_APPS, "django_tasks", "tests.integration.tasks.host"]
DRAMATIQ_BROKER = {"BROKER": "switchyard.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
ROOT_URLCONF = "tests.library_urls"
SWITCHYARD = replace(OTHER_SWITCHYARD, topology=YARD)
TASKS = {"default": {"BACKEND": "switchyard.tasks.SwitchyardBackend"}}
