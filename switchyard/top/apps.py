from django.apps import AppConfig


class TopConfig(AppConfig):
    name = "switchyard.top"
    label = "switchyard_top"
    verbose_name = "Overview in a terminal"
