from django.apps import AppConfig


class AlertsConfig(AppConfig):
    name = "apps.platform.alerts"
    label = "alerts"
    default_auto_field = "django.db.models.BigAutoField"
