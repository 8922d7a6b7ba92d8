from django.apps import AppConfig


class OperationsConfig(AppConfig):
    name = "switchyard.operations"
    label = "switchyard_operations"
    verbose_name = "Operations room"
    default_auto_field = "django.db.models.BigAutoField"
