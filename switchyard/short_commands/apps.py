from django.apps import AppConfig


class ShortCommandsConfig(AppConfig):
    """Each command of ``manage.py switchyard`` under its own name, for a project without commands of these names."""

    name = "switchyard.short_commands"
    label = "switchyard_short_commands"
    verbose_name = "Short commands"
