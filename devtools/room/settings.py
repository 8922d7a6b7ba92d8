"""Settings of the yard to look at: the project's own, plus its actors."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS

INSTALLED_APPS = [*PROJECT_APPS, "devtools.room"]
