"""The project on ``django-tasks-db``."""

from tests.integration.tasks.host.settings import *  # noqa: F403
from tests.integration.tasks.host.settings import INSTALLED_APPS as HOST_APPS

INSTALLED_APPS = [*HOST_APPS, "django_tasks_db"]
QUEUES = ["default", "threads", "greenlets", "again"]
TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend", "QUEUES": QUEUES}}
