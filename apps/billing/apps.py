from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core import checks
from django.db.models import Q

from apps.billing import signatures


class BillingConfig(AppConfig):
    name = "apps.billing"

    def ready(self) -> None:
        from apps.billing.models import EventState, PaymentEvent
        from apps.retention.kinds import RetentionKind, register

        checks.register(check_payment_secret, "switchyard")
        register(
            RetentionKind(
                name="payment_events",
                title="Payment events",
                content="Applied events of the payment provider; payments stay, and events without an invoice",
                model=PaymentEvent,
                age="received_at",
                ended=Q(state=EventState.APPLIED),
            )
        )


def check_payment_secret(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Refuse a secret of inbound payment events that is no valid signing key."""
    try:
        signatures.key_of(settings.PAYMENT_SECRET)
    except ValueError as error:
        fact, _, remedy = str(error).partition("; ")
        return [checks.Error(fact, hint=remedy, id="switchyard.E060")]
    return []
