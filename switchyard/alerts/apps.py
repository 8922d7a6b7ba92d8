from django.apps import AppConfig
from django.core.checks import register


class AlertsConfig(AppConfig):
    name = "switchyard.alerts"
    label = "switchyard_alerts"
    verbose_name = "Alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from switchyard.alerts.bulk_acknowledge import BulkAcknowledge
        from switchyard.alerts.checks import check_alert_urls
        from switchyard.bulk import kinds

        register(check_alert_urls, "switchyard")
        kinds.register("alert.acknowledge", BulkAcknowledge())
