from importlib.util import find_spec

from django.apps import AppConfig
from django.conf import settings


class ActorsConfig(AppConfig):
    """App that declares the tasks of Django's task API, where ``TASKS`` is set: the actors' app stands above jobs."""

    name = "apps.platform.actors"
    label = "switchyard_actors"
    verbose_name = "Actors"

    def ready(self) -> None:
        """Declare all tasks; the actors are declared already."""
        if not getattr(settings, "TASKS", None) or not any(map(find_spec, ("django.tasks", "django_tasks"))):
            return
        from apps.platform.tasks.discovery import declare_tasks

        declare_tasks()
