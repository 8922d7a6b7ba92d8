from contextlib import suppress

from django.apps import AppConfig
from django.db import OperationalError, connection


class DatabaseYardConfig(AppConfig):
    """Opens a connection before anything is forked, as a project may do while it loads."""

    name = "tests.chaos.database_yard"
    label = "database_yard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        with suppress(OperationalError):
            connection.ensure_connection()
