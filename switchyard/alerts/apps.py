import logging

from django.apps import AppConfig
from django.core.checks import register


class AlertsConfig(AppConfig):
    name = "switchyard.alerts"
    label = "switchyard_alerts"
    verbose_name = "Alerts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and silence urllib3 where it logs URLs, which are secrets.

        A level that the project has set itself stays.
        """
        from switchyard.alerts.checks import check_alert_urls, check_apprise

        register(check_alert_urls, "switchyard")
        register(check_apprise, "switchyard", deploy=True)
        for name, level in (("urllib3.connection", logging.ERROR), ("urllib3.connectionpool", logging.INFO)):
            logger = logging.getLogger(name)
            if logger.level == logging.NOTSET:
                logger.setLevel(level)
