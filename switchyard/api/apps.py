from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "switchyard.api"
    label = "switchyard_api"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "API"
