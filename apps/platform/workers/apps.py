from django.apps import AppConfig


class WorkersConfig(AppConfig):
    name = "apps.platform.workers"
    label = "workers"
    default_auto_field = "django.db.models.BigAutoField"
