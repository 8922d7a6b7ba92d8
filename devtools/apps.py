from django.apps import AppConfig

from switchyard.commands.modules import MODULES


class DevtoolsConfig(AppConfig):
    """App for development: ``runpools`` with ``--chaos``."""

    name = "devtools"

    def ready(self) -> None:
        """Put this app's ``runpools``, which knows ``--chaos``, in place of the library's."""
        MODULES["runpools"] = "devtools.chaos.runpools"
