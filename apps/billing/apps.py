from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks

from apps.billing import signatures


class BillingConfig(AppConfig):
    name = "apps.billing"

    def ready(self) -> None:
        checks.register(check_payment_secret, "switchyard")


def check_payment_secret(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse a secret of inbound payment events that is no valid signing key."""
    try:
        signatures.key_of(settings.PAYMENT_SECRET)
    except ValueError as error:
        fact, _, remedy = str(error).partition("; ")
        return [checks.Error(fact, hint=remedy, id="switchyard.E060")]
    return []
