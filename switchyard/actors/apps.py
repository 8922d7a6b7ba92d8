from importlib.util import find_spec

from django.apps import AppConfig
from django.conf import settings

from switchyard.broker.errors import SwitchyardError
from switchyard.console.commands import refuse


class ActorsConfig(AppConfig):
    """App that declares the tasks of Django's task API, where ``TASKS`` is set: the actors' app stands above jobs."""

    name = "switchyard.actors"
    label = "switchyard_actors"
    verbose_name = "Actors"

    def ready(self) -> None:
        """Declare all tasks. An option of a task that cannot be used stops the process with exit code 78."""
        if not getattr(settings, "TASKS", None) or not any(map(find_spec, ("django.tasks", "django_tasks"))):
            return
        from switchyard.tasks.backend import declare_tasks

        try:
            declare_tasks()
        except SwitchyardError as error:
            refuse(str(error))
