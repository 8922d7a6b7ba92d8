from django.apps import AppConfig


class CommandsConfig(AppConfig):
    name = "apps.platform.commands"
    label = "switchyard_commands"
    verbose_name = "Commands"
