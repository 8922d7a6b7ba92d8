from django.apps import AppConfig
from django.core import checks


class BillingConfig(AppConfig):
    name = "apps.product.billing"
    label = "billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.retention.kinds import register
        from apps.product.billing.checks import check_payment_secret
        from apps.product.billing.retention import KIND

        checks.register(check_payment_secret, "switchyard")
        register(KIND)
