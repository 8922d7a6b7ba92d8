from django.apps import AppConfig


class CommandsConfig(AppConfig):
    """App of ``manage.py switchyard``."""

    name = "switchyard.commands"
    label = "switchyard_commands"
    verbose_name = "Commands"
