from django.apps import AppConfig


class BulkConfig(AppConfig):
    name = "switchyard.bulk"
    label = "switchyard_bulk"
    verbose_name = "Bulk acts"
    default_auto_field = "django.db.models.BigAutoField"
