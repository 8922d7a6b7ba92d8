import logging

from django.apps import AppConfig
from django.core.checks import register


class AlertsConfig(AppConfig):
    name = "switchyard.alerts"
    label = "switchyard_alerts"
    verbose_name = "Alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the check, and silence urllib3's warnings about malformed headers: they log URLs, which are secrets.

        A level that the project has set itself stays.
        """
        from switchyard.alerts.checks import check_alert_urls
        from switchyard.bulk import kinds

        register(check_alert_urls, "switchyard")
        logger = logging.getLogger("urllib3.connection")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
        kinds.register("alert.acknowledge", "switchyard.alerts.acts:ACKNOWLEDGE")
