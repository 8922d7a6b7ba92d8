from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "switchyard.serving"
    label = "switchyard_serving"
    verbose_name = "Serving"
