from django.apps import AppConfig


class TopConfig(AppConfig):
    name = "apps.platform.top"
    label = "switchyard_top"
    verbose_name = "Overview in a terminal"
