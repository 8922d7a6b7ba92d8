"""django-dramatiq's app, with this library's broker as the default of ``DRAMATIQ_BROKER``."""

import re
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django_dramatiq.apps import DjangoDramatiqConfig

from switchyard import __name__ as library

BUILDER = f"{library}.wiring.build_broker"
# Brokers of Dramatiq from which no pool fetches: what they send would wait for ever.
FOREIGN = re.compile(r"dramatiq\.brokers\.(?!stub\.)")


class DramatiqConfig(DjangoDramatiqConfig):
    """Build the broker when the app is loaded, before any actor is declared."""

    name = "django_dramatiq"

    @classmethod
    def broker_settings(cls) -> dict[str, Any]:
        """Return the project's ``DRAMATIQ_BROKER``, with this library's broker where it names none.

        Raises:
            ImproperlyConfigured: it names one of Dramatiq's own, or is no ``dict``; or the app is listed twice.
        """
        for app in settings.INSTALLED_APPS:
            if app == cls.name or app.startswith(f"{cls.name}."):
                raise ImproperlyConfigured(f'INSTALLED_APPS lists "{app}", which {library}.apps() brings: remove it')
        declared: Any = getattr(settings, "DRAMATIQ_BROKER", {})
        remedy = f'remove it, or set it to {{"BROKER": "{BUILDER}"}}'
        if not isinstance(declared, dict):
            raise ImproperlyConfigured(f"DRAMATIQ_BROKER is a {type(declared).__name__}, not a dict; {remedy}")
        found = {"BROKER": BUILDER, **declared}
        if FOREIGN.match(str(found["BROKER"])):
            fact = f"DRAMATIQ_BROKER names {found['BROKER']}, from which {library}'s pools fetch nothing"
            raise ImproperlyConfigured(f"{fact}; {remedy}")
        return found
