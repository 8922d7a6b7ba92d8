import logging

from django.apps import AppConfig


class OutboundConfig(AppConfig):
    name = "switchyard.outbound"
    label = "switchyard_outbound"
    verbose_name = "Outbound"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Silence urllib3's warnings about malformed headers: they log URLs, whose paths may be secrets.

        A level that the project has set itself stays.
        """
        logger = logging.getLogger("urllib3.connection")
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.ERROR)
