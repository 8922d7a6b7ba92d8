from django.apps import AppConfig
from django.core import checks


class BillingConfig(AppConfig):
    name = "apps.billing"
    label = "billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.billing.checks import check_payment_secret
        from apps.billing.retention import KIND
        from apps.retention.kinds import register

        checks.register(check_payment_secret, "switchyard")
        register(KIND)
