from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "apps.platform.operations"
    label = "switchyard_operations"
    verbose_name = "Operations room"
    default_auto_field = "django.db.models.BigAutoField"
