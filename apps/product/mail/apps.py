from django.apps import AppConfig
from django.core import checks


class MailConfig(AppConfig):
    name = "apps.product.mail"
    label = "mail"
    verbose_name = "Mail"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.platform.retention.kinds import register
        from apps.product.mail.checks import check_reset_retries
        from apps.product.mail.retention import KIND

        checks.register(check_reset_retries, "switchyard")
        register(KIND)
