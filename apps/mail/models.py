"""Sent mails, by which a repeated run sends nothing twice, and the model behind the mailbox page."""

from django.db import models
from django.utils import timezone

from apps.retention.kinds import RetentionKind


class Template(models.TextChoices):
    """Templates of this product."""

    WELCOME = "welcome", "Welcome"
    PASSWORD_RESET = "password_reset", "Password reset"
    NEWSLETTER = "newsletter", "Newsletter"


class MailState(models.TextChoices):
    """State of a mail. Only ``sent`` and ``refused`` are final."""

    CLAIMED = "claimed", "Claimed"
    SENT = "sent", "Sent"
    REFUSED = "refused", "Refused"


class SentMail(models.Model):
    """One mail of one job. A run claims, sends and marks it; a repeated run finds the mark and sends nothing.

    ``claimed_until`` keeps a concurrent run of the same job from sending. A run that knows it has sent nothing sets it
    to the past. See ``guard.py`` for the effect of a crash.
    """

    key = models.CharField(max_length=80, unique=True, help_text="Job id and template.")
    job_id = models.CharField(max_length=40, db_index=True)
    template = models.CharField(max_length=20, choices=Template)
    to = models.EmailField("recipient", db_index=True)
    state = models.CharField(max_length=10, choices=MailState, default=MailState.CLAIMED, db_index=True)
    message_id = models.CharField("Message-ID", max_length=320)
    runs = models.PositiveIntegerField(default=0, help_text="Times a worker set out to send it.")
    reply = models.CharField("server's last refusal", max_length=40, blank=True, help_text="SMTP codes only.")
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    claimed_until = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-id"]
        verbose_name = "mail"
        verbose_name_plural = "sent mails"
        permissions = [("send_mail", "Can send a mail again")]

    def __str__(self) -> str:
        return f"{self.get_template_display()} to {self.to}"


class Mailbox(SentMail):
    """Model without a table, for the URL and the permission of the mailbox page."""

    class Meta:
        proxy = True
        default_permissions = ("view",)
        verbose_name = "mailbox"
        verbose_name_plural = "mailbox"


class UsedAllowance(models.Model):
    """Count of requests for one subject in its present window, see :mod:`apps.mail.allowances`."""

    key = models.CharField(max_length=64, unique=True, help_text="HMAC of the allowance's name and the subject.")
    began_at = models.DateTimeField(db_index=True)
    count = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.count} since {self.began_at:%Y-%m-%d %H:%M:%S}"


RETENTION = RetentionKind(
    name="mails",
    title="Mails",
    content="Rows of sent and refused mails; those of mails that are still to be sent stay",
    model=SentMail,
    ended=models.Q(state__in=(MailState.SENT, MailState.REFUSED)),
)
