from django.apps import AppConfig


class ServingConfig(AppConfig):
    name = "apps.platform.serving"
    label = "switchyard_serving"
    verbose_name = "Serving"
