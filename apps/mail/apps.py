from django.apps import AppConfig
from django.core import checks
from django.db.models import Q


class MailConfig(AppConfig):
    name = "apps.mail"

    def ready(self) -> None:
        from apps.mail.checks import check_reset_retries
        from apps.mail.models import MailState, SentMail
        from apps.retention.kinds import RetentionKind, register

        checks.register(check_reset_retries, "switchyard")
        register(
            RetentionKind(
                name="mails",
                title="Mails",
                content="Rows of sent and refused mails; those of mails that are still to be sent stay",
                model=SentMail,
                ended=Q(state__in=(MailState.SENT, MailState.REFUSED)),
            )
        )
