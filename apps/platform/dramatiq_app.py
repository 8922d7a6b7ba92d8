"""django-dramatiq's app, with this library's broker as the default of ``DRAMATIQ_BROKER``."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django_dramatiq.apps import DjangoDramatiqConfig


class DramatiqConfig(DjangoDramatiqConfig):
    """Build the broker when the app is loaded, before any actor is declared.

    Without ``DRAMATIQ_BROKER`` in the settings, django-dramatiq would connect to a RabbitMQ on this machine.
    """

    name = "django_dramatiq"

    @classmethod
    def broker_settings(cls) -> dict[str, Any]:
        """Return the project's ``DRAMATIQ_BROKER``, or the one that names this library's broker."""
        own = {"BROKER": "apps.platform.wiring.build_broker", "OPTIONS": {}, "MIDDLEWARE": []}
        declared: dict[str, Any] = getattr(settings, "DRAMATIQ_BROKER", own)
        return declared
