import sys
from pathlib import PurePath

from django.apps import AppConfig


class CommandsConfig(AppConfig):
    """App of ``manage.py switchyard``, and of our ``rundramatiq``."""

    name = "switchyard.commands"
    label = "switchyard_commands"
    verbose_name = "Commands"

    def ready(self) -> None:
        """Name the right command where ``manage.py`` is given one of another library; Django then refuses that one."""
        if len(sys.argv) < 2 or PurePath(sys.argv[0]).name not in ("manage.py", "django-admin"):
            return
        from switchyard.commands.foreign_names import unknown_command  # workers and web need no table of commands

        if remedy := unknown_command(sys.argv):
            sys.stderr.write(f"{remedy}\n")
