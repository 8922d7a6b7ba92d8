from django.apps import AppConfig
from django.core.checks import register


class AlertsConfig(AppConfig):
    name = "apps.platform.alerts"
    label = "switchyard_alerts"
    verbose_name = "Alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.alerts.bulk_acknowledge import BulkAcknowledge
        from apps.platform.alerts.checks import check_alert_urls
        from apps.platform.bulk import kinds

        register(check_alert_urls, "switchyard")
        kinds.register("alert.acknowledge", BulkAcknowledge())
