from django.apps import AppConfig
from django.core import checks


class MailConfig(AppConfig):
    name = "apps.mail"
    label = "mail"
    verbose_name = "Mail"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from apps.mail.checks import check_reset_retries
        from apps.mail.retention import KIND
        from apps.retention.kinds import register

        checks.register(check_reset_retries, "switchyard")
        register(KIND)
