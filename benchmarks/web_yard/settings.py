"""Settings of the project, plus the route and its job."""

from project.settings import *  # noqa: F403
from project.settings import INSTALLED_APPS as PROJECT_APPS

INSTALLED_APPS = [*PROJECT_APPS, "benchmarks.web_yard"]
ROOT_URLCONF = "benchmarks.web_yard.urls"
