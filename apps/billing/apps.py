from django.apps import AppConfig
from django.core import checks
from django.db.models import Q


class BillingConfig(AppConfig):
    name = "apps.billing"

    def ready(self) -> None:
        from apps.billing.checks import check_payment_secret
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
