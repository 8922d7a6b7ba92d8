from django.apps import AppConfig

from switchyard.broker.errors import SwitchyardError
from switchyard.console.commands import refuse
from switchyard.workers import checks
from switchyard.workers.discovery import declare_actors


class WorkersConfig(AppConfig):
    """App that declares every actor in every process of the yard, and registers the system checks."""

    name = "switchyard.workers"
    label = "switchyard_workers"
    verbose_name = "Workers"

    def ready(self) -> None:
        """Declare all actors; one that is declared wrongly stops the process with exit 78."""
        try:
            declare_actors()
        except SwitchyardError as error:
            refuse(str(error))
        checks.register_all()
